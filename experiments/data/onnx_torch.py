"""Run the ONNX graph of a Piper voice with PyTorch, so that a GPU can speak many texts at once.

onnxruntime on a CPU makes about ten seconds of speech a second and core; its GPU build is larger
than all other packages of this corpus together. The graph of a voice has fifty kinds of operations,
each one line here. What they do is the ONNX specification (onnx.ai/onnx/operators, opset 15).

Shapes and what is computed from them stay on the CPU, so that the device is not waited for; all
else is on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional

Tensor = torch.Tensor
Attributes = dict[str, Any]

# Operations with operands that are shapes, axes or indices: the first two are read on the CPU.
_READ_SHAPES = frozenset({
    "ConstantOfShape", "CumSum", "Expand", "Gather", "GatherElements", "GatherND", "Pad", "Range",
    "ReduceSum", "Reshape", "ScatterND", "Slice", "Split", "Squeeze", "Unsqueeze",
})  # fmt: skip

# Integers that may be a shape, or a few of them.
_LONGEST_SHAPE = 64


class Graph:
    """The nodes of a model, with its constants as tensors."""

    def __init__(self, path: Path, device: torch.device | str) -> None:
        """Read a model.

        Raises:
            NotImplementedError: it has an operation that is not among those here.
        """
        graph = onnx.load(str(path)).graph
        self.device = torch.device(device)
        self.constants = {c.name: self._constant(c) for c in graph.initializer}
        self.nodes = [node for node in graph.node if node.op_type != "Constant"]
        for node in graph.node:
            if node.op_type == "Constant":
                value = onnx.helper.get_attribute_value(node.attribute[0])
                self.constants[node.output[0]] = self._constant(value)
        unknown = sorted({node.op_type for node in self.nodes} - set(OPERATIONS))
        if unknown:
            raise NotImplementedError(f"{path} has the operations {unknown}, which are not known.")
        self._attributes = [
            {a.name: self._attribute(a) for a in node.attribute} for node in self.nodes
        ]
        self._last = self._last_uses({o.name for o in graph.output})

    def _constant(self, tensor: onnx.TensorProto) -> Tensor:
        value = torch.from_numpy(numpy_helper.to_array(tensor).copy())
        return value.to(self.device) if value.is_floating_point() else value

    def _attribute(self, attribute: onnx.AttributeProto) -> Any:
        value = onnx.helper.get_attribute_value(attribute)
        return self._constant(value) if isinstance(value, onnx.TensorProto) else value

    def _placed(self, operation: str, x: Tensor) -> Tensor:
        """Numbers belong on the device, and so do indices and what grids of them are made from."""
        of_shape = x.dtype in (torch.int64, torch.bool) and x.numel() <= _LONGEST_SHAPE
        if x.device.type != "cpu" or (of_shape and operation != "Range"):
            return x
        return x.to(self.device)

    def _last_uses(self, kept: set[str]) -> list[list[str]]:
        """After each node, the values that no later one reads."""
        seen = set(kept) | set(self.constants)
        last: list[list[str]] = []
        for node in reversed(self.nodes):
            names = {name for name in [*node.input, *node.output] if name} - seen
            seen |= names
            last.append(sorted(names))
        return last[::-1]

    @torch.inference_mode()
    def __call__(self, inputs: dict[str, Tensor], outputs: list[str]) -> list[Tensor]:
        """The values `outputs` for `inputs`, both of any node: what is given is not computed."""
        values: dict[str, Tensor | None] = {"": None, **self.constants, **inputs}
        wanted: dict[str, Tensor] = {}
        for node, attributes, done in zip(self.nodes, self._attributes, self._last, strict=True):
            if node.output[0] in inputs:
                continue
            operands = _together(node.op_type, [values[name] for name in node.input])
            result = OPERATIONS[node.op_type](attributes, *operands)
            if len(node.output) == 1:
                result = [result]
            for name, value in zip(node.output, result, strict=True):
                value = self._placed(node.op_type, value)
                values[name] = value
                if name in outputs:
                    wanted[name] = value
            for name in done:
                values.pop(name, None)
        return [wanted[name] for name in outputs]


def _together(operation: str, operands: list[Tensor | None]) -> list[Tensor | None]:
    """Operands that meet on the device of the first that is not on the CPU."""
    device = next((x.device for x in operands if x is not None and x.device.type != "cpu"), None)
    if device is None:
        return operands
    stay = operation in _READ_SHAPES
    return [
        x if x is None or x.dim() == 0 or (stay and x.dtype == torch.int64) else x.to(device)
        for x in operands
    ]


def _on(index: Tensor, x: Tensor) -> Tensor:
    return index.to(x.device, non_blocking=True)


def _slice(a: Attributes, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None,
           steps: Tensor | None = None) -> Tensor:  # fmt: skip
    first, last = starts.tolist(), ends.tolist()
    over = axes.tolist() if axes is not None else list(range(len(first)))
    by = steps.tolist() if steps is not None else [1] * len(first)
    for axis, start, end, step in zip(over, first, last, by, strict=True):
        size = x.shape[axis]
        if step > 0:
            low, high = (max(n + size, 0) if n < 0 else min(n, size) for n in (start, end))
            x = x.narrow(axis, low, max(high - low, 0))
            if step > 1:
                x = x[(slice(None),) * (axis % x.dim()) + (slice(None, None, step),)]
        else:
            begin = start + size if start < 0 else min(start, size - 1)
            stop = end + size if -size <= end < 0 else max(end, -1)
            x = x.index_select(axis, _on(torch.arange(begin, stop, step), x))
    return x


def _reshape(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape.tolist())])


def _expand(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, shape.tolist()))


def _gather(a: Attributes, x: Tensor, index: Tensor) -> Tensor:
    axis = a.get("axis", 0) % x.dim()
    index = torch.where(index < 0, index + x.shape[axis], index)
    rows = x.index_select(axis, _on(index.reshape(-1), x))
    return rows.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def _gather_elements(a: Attributes, x: Tensor, index: Tensor) -> Tensor:
    axis = a.get("axis", 0)
    index = _on(index, x)
    return x.gather(axis, torch.where(index < 0, index + x.shape[axis], index))


def _scatter_nd(a: Attributes, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    out = x.clone()
    out[_on(index, x).unbind(-1)] = updates
    return out


def _unsqueeze(a: Attributes, x: Tensor, axes: Tensor) -> Tensor:
    rank = x.dim() + axes.numel()
    for axis in sorted(n % rank for n in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _pad(a: Attributes, x: Tensor, pads: Tensor, value: Tensor | None = None) -> Tensor:
    sizes = pads.tolist()
    pairs = [(sizes[i], sizes[i + x.dim()]) for i in reversed(range(x.dim()))]
    fill = 0.0 if value is None else float(value)
    return functional.pad(x, [n for pair in pairs for n in pair], value=fill)


def _one_dimensional(a: Attributes) -> Attributes:
    before, after = a.get("pads", [0, 0])
    if before != after:
        raise NotImplementedError(f"a convolution with the uneven padding {before}, {after}")
    return {
        "stride": a.get("strides", [1]),
        "padding": before,
        "dilation": a.get("dilations", [1]),
        "groups": a.get("group", 1),
    }


def _conv(a: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    return functional.conv1d(x, w, b, **_one_dimensional(a))


def _conv_transpose(a: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    extra = a.get("output_padding", [0])
    return functional.conv_transpose1d(x, w, b, output_padding=extra, **_one_dimensional(a))


def _reduce_sum(a: Attributes, x: Tensor, axes: Tensor) -> Tensor:
    return x.sum(axes.tolist(), keepdim=bool(a.get("keepdims", 1)))


def _range(a: Attributes, start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    return torch.arange(int(start), int(end), int(step))


def _divide(a: Attributes, x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _cast(a: Attributes, x: Tensor) -> Tensor:
    kinds = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool}
    return x.to(kinds[a["to"]])


def _constant_of_shape(a: Attributes, shape: Tensor) -> Tensor:
    return a["value"].expand(shape.tolist())


def _simple(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, *x: function(*x)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": _simple(torch.add),
    "And": _simple(torch.logical_and),
    "Cast": _cast,
    "Ceil": _simple(torch.ceil),
    "Clip": lambda a, x, low=None, high=None: torch.clamp(x, low, high),
    "Concat": lambda a, *x: torch.cat(x, a["axis"]),
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "CumSum": lambda a, x, axis: torch.cumsum(x, int(axis)),
    "Div": _divide,
    "Equal": _simple(torch.eq),
    "Erf": _simple(torch.erf),
    "Exp": _simple(torch.exp),
    "Expand": _expand,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": lambda a, x, index: x[_on(index, x).unbind(-1)],
    "GreaterOrEqual": _simple(torch.ge),
    "LeakyRelu": lambda a, x: functional.leaky_relu(x, a.get("alpha", 0.01)),
    "Less": _simple(torch.lt),
    "LessOrEqual": _simple(torch.le),
    "MatMul": _simple(torch.matmul),
    "Mul": _simple(torch.mul),
    "Neg": _simple(torch.neg),
    "NonZero": lambda a, x: torch.nonzero(x).T,
    "Not": _simple(torch.logical_not),
    "Pad": _pad,
    "Pow": _simple(torch.pow),
    "RandomNormalLike": lambda a, x: torch.randn(x.shape, device=x.device),
    "Range": _range,
    "ReduceMax": lambda a, x: x.max(),
    "ReduceMean": lambda a, x: x.mean(a["axes"], keepdim=bool(a.get("keepdims", 1))),
    "ReduceSum": _reduce_sum,
    "Relu": _simple(torch.relu),
    "Reshape": _reshape,
    "ScatterND": _scatter_nd,
    "Shape": lambda a, x: torch.tensor(x.shape),
    "Sigmoid": _simple(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda a, x: torch.softmax(x, a.get("axis", -1)),
    "Softplus": _simple(functional.softplus),
    "Split": lambda a, x, sizes: x.split(sizes.tolist(), a.get("axis", 0)),
    "Sqrt": _simple(torch.sqrt),
    "Squeeze": lambda a, x, axes: x.squeeze(tuple(axes.tolist())),
    "Sub": _simple(torch.sub),
    "Tanh": _simple(torch.tanh),
    "Transpose": lambda a, x: x.permute(a["perm"]),
    "Unsqueeze": _unsqueeze,
    "Where": _simple(torch.where),
}
