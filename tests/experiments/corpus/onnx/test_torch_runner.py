"""The interpreter of ONNX graphs against onnxruntime, one operation at a time, and a tiny voice."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from experiments.corpus.onnx.torch_runner import _READ_SHAPES, OPERATIONS, Graph  # noqa: E402
from experiments.corpus.synthesis.piper import DURATIONS, HOP, LENGTH, OUTPUT, PiperVoice  # noqa: E402


def values(*shape):
    return np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)


def ints(*numbers):
    return np.array(numbers, np.int64)


X, Y = values(2, 3, 8), values(2, 3, 8)[::-1].copy()
TRUE, OTHER = X > 0, Y > 0
INDEX = ints(1, -1, 0)
FILL = numpy_helper.from_array(np.array([2.5], np.float32))

REPEAT = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
REPEAT |= {"nearest_mode": "floor"}
BETWEEN = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}

# Operation, operands, attributes; numbers of one element and no axis are written as `np.array(n)`.
CASES = [
    *((kind, [X, Y], {}) for kind in ("Add", "Sub", "Mul", "Div", "Equal", "Less", "LessOrEqual")),
    *((kind, [X, X[:, :1]], {}) for kind in ("Mul", "GreaterOrEqual")),
    ("Greater", [X, Y], {}),
    *((kind, [X], {}) for kind in ("Atan", "Cos", "Floor", "Round", "Sin")),
    ("Round", [np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)], {}),
    *((kind, [X], {}) for kind in ("Ceil", "Erf", "Exp", "Neg", "Relu", "Shape", "Sigmoid")),
    *((kind, [X], {}) for kind in ("Softplus", "Tanh", "LeakyRelu", "NonZero")),
    ("Add", [X, np.array(2.0, np.float32)], {}),
    ("And", [TRUE, OTHER], {}),
    ("Cast", [X], {"to": TensorProto.INT64}),
    ("Cast", [TRUE], {"to": TensorProto.FLOAT}),
    ("Cast", [X], {"to": TensorProto.BOOL}),
    ("Clip", [X, np.array(-0.5, np.float32), np.array(0.25, np.float32)], {}),
    ("Clip", [X, np.array(0.1, np.float32)], {}),
    ("Concat", [X, Y], {"axis": -1}),
    ("Concat", [ints(1, 2), ints(3)], {"axis": 0}),
    ("ConstantOfShape", [ints(2, 3)], {"value": FILL}),
    ("Conv", [X, values(4, 3, 3), values(4)], {"pads": [2, 2], "dilations": [2]}),
    ("Conv", [X, values(6, 1, 2)], {"strides": [2], "group": 3}),
    ("ConvTranspose", [X, values(3, 2, 4), values(2)], {"strides": [2], "pads": [1, 1]}),
    ("ConvTranspose", [X, values(3, 2, 3)], {"strides": [2], "output_padding": [1]}),
    ("CumSum", [X, np.array(-1)], {}),
    ("Div", [ints(7, -7, 8), ints(2, 2, -3)], {}),
    ("Expand", [X[:, :1], ints(2, 2, 1, 8)], {}),
    ("FastGelu", [X], {}),
    ("FastGelu", [X, values(8)], {}),
    ("FusedMatMul", [X, values(2, 3, 5)], {"transA": 1}),
    ("FusedMatMul", [X, values(2, 5, 8)], {"transB": 1, "alpha": 0.5}),
    ("Gather", [X, INDEX.reshape(3, 1)], {"axis": 1}),
    ("Gather", [X, np.array(-1)], {"axis": -1}),
    ("GatherElements", [X, np.tile(INDEX, (2, 3, 1))], {"axis": -1}),
    ("GatherND", [X, np.stack([ints(0, 1, 1), ints(2, 0, -1)], -1)], {}),
    ("LayerNormalization", [X, values(8), values(8)], {"axis": -1, "epsilon": 0.1}),
    ("LayerNormalization", [X, values(3, 8)], {"axis": 1}),
    ("LeakyRelu", [X], {"alpha": 0.3}),
    ("MatMul", [X, values(2, 8, 3)], {}),
    ("Not", [TRUE], {}),
    ("Pad", [X, ints(0, 1, 2, 1, 0, 3)], {}),
    ("Pad", [X, ints(0, 0, -2, 0, 0, 1), np.array(0.5, np.float32)], {}),
    ("Pad", [X, ints(0, 0, 2, 0, 0, 3)], {"mode": "reflect"}),
    ("Pow", [X, np.array(2.0, np.float32)], {}),
    ("Range", [np.array(2), np.array(9), np.array(3)], {}),
    ("ReduceMax", [X], {"keepdims": 0}),
    ("ReduceMean", [X], {"axes": [-1]}),
    ("ReduceMean", [X], {"axes": [0, 1], "keepdims": 0}),
    ("ReduceMean", [X, ints(0, 2)], {}),
    ("ReduceSum", [X, ints(1, 2)], {}),
    ("ReduceSum", [X, ints(-2)], {"keepdims": 0}),
    ("Reshape", [X, ints(0, -1, 4)], {}),
    ("Resize", [X, None, np.array([1, 1, 3], np.float32)], REPEAT),
    ("Resize", [X, None, np.array([1, 1, 3], np.float32)], BETWEEN),
    ("Resize", [X, None, np.array([1, 1, 0.25], np.float32)], BETWEEN),
    ("Resize", [values(1, 2, 900), None, np.array([1, 1, 1 / 300], np.float32)], BETWEEN),
    ("ScatterND", [X, np.stack([ints(0, 1), ints(2, 0)], -1), values(2, 8)], {}),
    ("STFT", [values(1, 90, 1), np.array(5), 0.1 * values(20), np.array(20)], {}),
    ("STFT", [values(2, 64, 1), np.array(4), values(16)], {"onesided": 0}),
    ("SkipLayerNormalization", [X, Y, values(8), values(8)], {"epsilon": 0.1}),
    ("SkipLayerNormalization", [X, Y, values(8), values(8), values(8)], {"epsilon": 1e-5}),
    ("Slice", [X, ints(1, -6), ints(9, -1), ints(1, 2)], {}),
    ("Slice", [X, ints(0), ints(100), ints(-1), ints(3)], {}),
    ("Slice", [X, ints(-1), ints(-(2**62)), ints(2), ints(-1)], {}),
    ("Slice", [X, ints(6, 1), ints(-7, 0), ints(2, 1), ints(-2, -1)], {}),
    ("Softmax", [X], {}),
    ("Softmax", [X], {"axis": 1}),
    ("Split", [X, ints(3, 1, 4)], {"axis": 2}),
    ("Sqrt", [np.abs(X)], {}),
    ("Squeeze", [X[:, :1, None], ints(1, -2)], {}),
    ("Transpose", [X], {"perm": [2, 0, 1]}),
    ("Unsqueeze", [X, ints(-1, 0)], {}),
    ("Where", [TRUE, X, np.array(0.0, np.float32)], {}),
]


# What came later than opset 15, and what onnxruntime has of its own.
LATE = {"LayerNormalization", "STFT"}
MICROSOFT = {"DynamicQuantizeLSTM", "FastGelu", "FusedMatMul", "SkipLayerNormalization"}


def write_model(path, nodes, inputs, outputs, constants=(), opset=15):
    """A model file; inputs are names with the kind of their numbers."""
    for node in nodes:
        node.domain = "com.microsoft" if node.op_type in MICROSOFT else ""
    inputs = [helper.make_tensor_value_info(*each, None) for each in inputs.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in outputs]
    constants = [numpy_helper.from_array(value, name) for name, value in dict(constants).items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def model_of(path, kind, operands, attributes):
    """The model of one operation: the first operand is given, the others are constants."""
    names = [f"x{n}" if x is not None else "" for n, x in enumerate(operands)]
    late = kind in LATE or (kind == "ReduceMean" and len(operands) == 2)
    outputs = [f"y{n}" for n in range(3 if kind == "Split" else 1)]
    write_model(
        path,
        [helper.make_node(kind, names, outputs, **attributes)],
        {"x0": helper.np_dtype_to_tensor_dtype(operands[0].dtype)},
        outputs,
        [(name, x) for name, x in zip(names[1:], operands[1:], strict=True) if name],
        opset=20 if late else 15,
    )
    return outputs


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_operation_is_that_of_onnxruntime(tmp_path, case):
    outputs = model_of(tmp_path / "m.onnx", *case)
    wanted = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"x0": case[1][0]})
    given = {"x0": torch.from_numpy(case[1][0])}
    for ours, theirs in zip(Graph(tmp_path / "m.onnx", "cpu")(given, outputs), wanted, strict=True):
        ours = ours.numpy()
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours == pytest.approx(theirs, abs=1e-5)


READ_SHAPES = [
    (kind, operands, attributes)
    for kind, operands, attributes in CASES
    if kind in _READ_SHAPES and operands[0].dtype == np.float32
]


@pytest.mark.parametrize("case", READ_SHAPES, ids=lambda case: case[0])
def test_shapes_are_not_read_from_the_device(tmp_path, case):
    kind, operands, attributes = case
    if kind == "Pad":
        operands = operands[:2]
    outputs = model_of(tmp_path / "m.onnx", kind, operands, attributes)
    given = {"x0": torch.from_numpy(operands[0])}
    wanted = Graph(tmp_path / "m.onnx", "cpu")(given, outputs)
    # The device `meta` has shapes alone: to read a number from it is an error.
    given = {"x0": given["x0"].to("meta")}
    for ours, theirs in zip(
        Graph(tmp_path / "m.onnx", "meta")(given, outputs), wanted, strict=True
    ):
        assert ours.device.type == "meta" and ours.shape == theirs.shape


def test_every_operation_is_compared():
    assert set(OPERATIONS) - {kind for kind, _, _ in CASES} == {"RandomNormalLike"}


def test_noise_is_normal(tmp_path):
    model_of(tmp_path / "m.onnx", "RandomNormalLike", [values(100, 100)], {})
    [noise] = Graph(tmp_path / "m.onnx", "cpu")({"x0": torch.ones(100, 100)}, ["y0"])
    assert noise.shape == (100, 100) and noise.dtype == torch.float32
    assert abs(float(noise.mean())) < 0.1 and abs(float(noise.std()) - 1) < 0.1


def test_unknown_operation_is_named(tmp_path):
    model_of(tmp_path / "m.onnx", "Mish", [X], {})
    with pytest.raises(NotImplementedError, match=r"m\.onnx has the operations \['Mish'\]"):
        Graph(tmp_path / "m.onnx", "cpu")


def test_uneven_padding_of_a_convolution_is_refused(tmp_path):
    model_of(tmp_path / "m.onnx", "Conv", [X, values(4, 3, 3)], {"pads": [2, 0]})
    with pytest.raises(NotImplementedError, match="uneven padding 2, 0"):
        Graph(tmp_path / "m.onnx", "cpu")({"x0": torch.from_numpy(X)}, ["y0"])


def block(path):
    """A graph of many operations whose shapes it computes: normalise, project, gate, add."""
    nodes = [
        ("ReduceMean", ["x"], "mean", {"axes": [-1]}),
        ("Sub", ["x", "mean"], "centred", {}),
        ("Pow", ["centred", "two"], "square", {}),
        ("ReduceMean", ["square"], "variance", {"axes": [-1]}),
        ("Sqrt", ["variance"], "deviation", {}),
        ("Div", ["centred", "deviation"], "normal", {}),
        ("MatMul", ["normal", "weight"], "projected", {}),
        ("Tanh", ["projected"], "left", {}),
        ("Sigmoid", ["projected"], "right", {}),
        ("Mul", ["left", "right"], "gated", {}),
        ("Shape", ["x"], "shape", {}),
        ("Gather", ["shape", "one"], "time", {"axis": 0}),
        ("Unsqueeze", ["time", "zeros"], "times", {}),
        ("Concat", ["minus", "times"], "flat", {"axis": 0}),
        ("Reshape", ["gated", "flat"], "reshaped", {}),
        ("Neg", ["gated"], "unused", {}),
        ("Transpose", ["reshaped"], "y", {"perm": [1, 0]}),
    ]
    constants = {
        "two": np.array(2.0, np.float32),
        "weight": values(8, 8),
        "one": np.array(1),
        "zeros": ints(0),
    }
    minus = helper.make_node("Constant", [], ["minus"], value=numpy_helper.from_array(ints(-1)))
    made = [helper.make_node(kind, given, [out], **more) for kind, given, out, more in nodes]
    return write_model(path, [minus, *made], {"x": TensorProto.FLOAT}, ["square", "y"], constants)


def test_whole_graph_is_that_of_onnxruntime(tmp_path):
    path = block(tmp_path / "m.onnx")
    wanted = onnxruntime.InferenceSession(path).run(["square", "y"], {"x": X})
    graph = Graph(path, "cpu")
    for _ in range(2):  # what was computed is not kept
        found = graph({"x": torch.from_numpy(X)}, ["square", "y"])
        for ours, theirs in zip(found, wanted, strict=True):
            assert ours.numpy() == pytest.approx(theirs, abs=1e-5)


def test_value_that_is_given_is_not_computed(tmp_path):
    graph = Graph(block(tmp_path / "m.onnx"), "cpu")
    x, ones = torch.from_numpy(X), torch.ones(2, 3, 8)
    [found] = graph({"x": x, "projected": ones}, ["y"])
    assert found.shape == (3, 16)
    assert found.numpy() == pytest.approx(np.tanh(1) / (1 + np.exp(-1)), abs=1e-5)


@pytest.fixture
def models(tmp_path):
    """A voice whose phonemes take as many frames as their ids say, times how slow it speaks."""
    nodes = [
        ("Gather", ["scales", "one"], LENGTH, {"axis": 0}),
        ("Cast", ["input"], "ids", {"to": TensorProto.FLOAT}),
        ("Unsqueeze", ["ids", "ones"], "rows", {}),
        ("Mul", ["rows", LENGTH], "long", {}),
        ("Ceil", ["long"], DURATIONS, {}),
        ("Unsqueeze", [DURATIONS, "ones"], OUTPUT, {}),
    ]
    inputs = {
        "input": TensorProto.INT64,
        "input_lengths": TensorProto.INT64,
        "scales": TensorProto.FLOAT,
    }
    write_model(
        tmp_path / "piper.onnx",
        [helper.make_node(kind, given, [out], **more) for kind, given, out, more in nodes],
        inputs,
        [OUTPUT],
        {"one": np.array(1), "ones": ints(1)},
    )
    config = {
        "inference": {"noise_scale": 0.5, "length_scale": 1.5, "noise_w": 0.25},
        "audio": {"sample_rate": 22050},
    }
    (tmp_path / "piper.json").write_text(json.dumps(config))
    return [tmp_path]


def test_voice_speaks_each_job_at_its_pace(models):
    jobs = [
        {"tokens": [2, 3, 5], "pitch": 1.0, "speed": 1.0},
        {"tokens": [4], "pitch": 2.0, "speed": 1.0},
        {"tokens": [4, 8], "pitch": 1.0, "speed": 0.5},
    ]
    voice = PiperVoice(models, "cpu")
    waves, samples = voice(jobs)
    frames = np.array([[3, 5, 8], [12, 0, 0], [12, 24, 0]])
    assert voice.rate == 22050
    assert (samples == HOP * frames).all()
    assert waves.dtype == np.float16 and (waves == frames).all()
