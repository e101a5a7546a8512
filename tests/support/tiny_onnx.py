"""A stand-in for CAM++ as ONNX bytes, written without the onnx package.

The protocol buffer fields are those of onnx.proto3. The network is mean over time of |features|,
times a matrix: input [1, T, 80], output [1, D].
"""

import numpy as np


def _number(field, value):
    out = bytearray()
    for number in (field << 3, value):
        while number >= 0x80:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        out.append(number)
    return bytes(out)


def _bytes(field, value):
    value = value.encode() if isinstance(value, str) else value
    head = _number(field, len(value))
    return bytes([head[0] | 2]) + head[1:] + value


def _node(kind, inputs, output, *attributes):
    parts = [_bytes(1, name) for name in inputs] + [_bytes(2, output), _bytes(4, kind)]
    return _bytes(1, b"".join(parts + [_bytes(5, a) for a in attributes]))


def _value(field, name, dims):
    shape = b"".join(_bytes(1, _bytes(2, d) if isinstance(d, str) else _number(1, d)) for d in dims)
    tensor = _number(1, 1) + _bytes(2, shape)
    return _bytes(field, _bytes(1, name) + _bytes(2, _bytes(1, tensor)))


def stand_in(matrix):
    """The model file of `matrix` float32 [80, D]."""
    rows, columns = matrix.shape
    weights = _number(1, rows) + _number(1, columns) + _number(2, 1) + _bytes(8, "matrix")
    weights += _bytes(9, matrix.astype("<f4").tobytes())
    axes = _bytes(1, "axes") + _number(8, 1) + _number(20, 7)
    keep = _bytes(1, "keepdims") + _number(3, 0) + _number(20, 2)
    graph = (
        _node("Abs", ["feature"], "size")
        + _node("ReduceMean", ["size"], "mean", axes, keep)
        + _node("MatMul", ["mean", "matrix"], "embedding")
        + _bytes(2, "stand_in")
        + _bytes(5, weights)
        + _value(11, "feature", [1, "frames", rows])
        + _value(12, "embedding", [1, columns])
    )
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, "") + _number(2, 13))


def expected(matrix, features):
    """What the network gives for mean-free features [T, 80], to length one: [D]."""
    vector = np.abs(features).mean(axis=0) @ matrix
    return vector / np.linalg.norm(vector)
