"""Run the ONNX graph of a Piper or Kokoro voice with PyTorch, on a GPU.

onnxruntime on a CPU makes about ten seconds of Piper's speech a second and core, and two of
Kokoro's; its GPU build is larger than all other packages of this corpus together. The graph of a
voice has some seventy kinds of operations, each one line here or in `onnx_speech_ops.py`. What they
do is the ONNX specification (onnx.ai/onnx/operators, opsets 15 to 20); what is not to be done for
each clip is done once (`onnx_floats.py`, `onnx_fuse.py`).

Shapes and what is computed from them stay on the CPU, so that the device is not waited for; all
else is on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple, cast

import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional

from experiments.corpus.onnx.dequantize import REWRITTEN, drop_quantisation, float_weights
from experiments.corpus.onnx.fuse import fuse
from experiments.corpus.onnx.graph import Model, Node, of_shapes_alone
from experiments.corpus.onnx.speech_ops import FUSED, SPEECH

Tensor = torch.Tensor
Attributes = dict[str, Any]

# Operations with operands that are shapes, axes or indices: the first two are read on the CPU.
_READ_SHAPES = frozenset({
    "ConstantOfShape", "CumSum", "Expand", "Gather", "GatherElements", "GatherND", "Pad", "Range",
    "ReduceMean", "ReduceSum", "Reshape", "ScatterND", "Slice", "Split", "Squeeze", "STFT",
    "Unsqueeze",
})  # fmt: skip

# Integers that may be a shape, or a few of them.
_LONGEST_SHAPE = 64


class Step(NamedTuple):
    """A node as it is run: its function, and where its values lie in the list of all values.

    Attributes:
        host: its results stay on the CPU.
        done: places of the values that no later step reads.
    """

    kind: str
    function: Callable[..., Any]
    attributes: Attributes
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    host: bool
    done: tuple[int, ...]


class Graph:
    """The nodes of a model, with its constants as tensors."""

    def __init__(self, path: Path, device: torch.device | str, kept: Collection[str] = ()) -> None:
        """Read a model.

        Args:
            kept: values beside the outputs that a caller gives or asks for; others may be lost
                where several nodes become one.

        Raises:
            NotImplementedError: it has an operation that is not among those here.
        """
        graph = onnx.load(str(path)).graph
        self.device = torch.device(device)
        model = _read(graph, [*kept, *(o.name for o in graph.output)])
        unknown = sorted({node.kind for node in model.nodes} - set(OPERATIONS) - REWRITTEN)
        if unknown:
            raise NotImplementedError(f"{path} has the operations {unknown}, which are not known.")
        with torch.no_grad():
            float_weights(model)
            drop_quantisation(model)
            fuse(model, OPERATIONS)
        self.nodes = model.nodes
        on_cpu = of_shapes_alone(model, {i.name for i in graph.input} - set(model.constants))
        self._host = {id(node) for node in model.nodes if node.outputs[0] in on_cpu}
        self._places = {"": 0}
        for name in (name for node in model.nodes for name in [*node.inputs, *node.outputs]):
            self._places.setdefault(name, len(self._places))
        self._values: list[Tensor | None] = [None] * len(self._places)
        for name, value in model.constants.items():
            if name in self._places:
                moved = value if name in on_cpu else self._moved(value)
                self._values[self._places[name]] = moved
        for node in model.nodes:
            node.attributes = {a: self._moved(value) for a, value in node.attributes.items()}
        self._plans: dict[tuple[frozenset[str], tuple[str, ...]], list[Step]] = {}

    def _moved(self, value: Any) -> Any:
        """Numbers and the weights of modules on the device; integers stay on the CPU."""
        if isinstance(value, torch.nn.Module):
            return value.to(self.device)
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(self.device)
        return value

    def _placed(self, operation: str, x: Tensor) -> Tensor:
        """Numbers belong on the device, and so do indices and what grids of them are made from."""
        if not x.is_cpu:
            return x
        of_shape = x.dtype in (torch.int64, torch.bool) and x.numel() <= _LONGEST_SHAPE
        if of_shape and operation != "Range":
            return x
        return x.to(self.device, non_blocking=True)

    def steps(self, given: Collection[str], outputs: list[str]) -> list[Step]:
        """What has to be run for `outputs` if the values `given` are there."""
        plan, constant = list[Step](), {i for i, x in enumerate(self._values) if x is not None}
        needed = {self._places[name] for name in outputs}
        seen = needed | constant | {0}
        for node in reversed(self.nodes):
            inputs, results = ([self._places[name] for name in names]
                               for names in (node.inputs, node.outputs))  # fmt: skip
            if not needed & set(results) or node.outputs[0] in given:
                continue
            needed |= set(inputs)
            last = ({*inputs, *results} - seen) - {0}
            seen |= last
            plan.append(
                Step(
                    node.kind,
                    OPERATIONS.get(node.kind) or FUSED[node.kind],
                    node.attributes,
                    tuple(inputs),
                    tuple(results),
                    id(node) in self._host,
                    tuple(last),
                )
            )
        return plan[::-1]

    @torch.inference_mode()
    def __call__(self, inputs: dict[str, Tensor], outputs: list[str]) -> list[Tensor]:
        """The values `outputs` for `inputs`, both of any node: what is given is not computed."""
        key = frozenset(inputs), tuple(outputs)
        if key not in self._plans:
            self._plans[key] = self.steps(inputs, outputs)
        values, mixed = self._values.copy(), self.device.type != "cpu"
        for name, given in inputs.items():
            if name in self._places:
                values[self._places[name]] = given
        for step in self._plans[key]:
            operands = [values[i] for i in step.inputs]
            if mixed and len(operands) > 1:
                operands = _together(step.kind, operands)
            result = step.function(step.attributes, *operands)
            if len(step.outputs) == 1:
                result = [result]
            for i, value in zip(step.outputs, result, strict=True):
                values[i] = self._placed(step.kind, value) if mixed and not step.host else value
            for i in step.done:
                values[i] = None
        return [cast(Tensor, values[self._places[name]]) for name in outputs]


def _read(graph: onnx.GraphProto, kept: Collection[str]) -> Model:
    """The nodes and constants of a graph, all on the CPU."""
    constants = {c.name: _tensor(c) for c in graph.initializer}
    nodes = []
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        attributes = {
            name: _tensor(value) if isinstance(value, onnx.TensorProto) else value
            for name, value in attributes.items()
        }
        if node.op_type == "Constant":
            [constants[node.output[0]]] = attributes.values()
        else:
            nodes.append(Node(node.op_type, list(node.input), list(node.output), attributes))
    return Model(nodes, constants, kept)


def _tensor(tensor: onnx.TensorProto) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(tensor).copy())


def _together(operation: str, operands: list[Tensor | None]) -> list[Tensor | None]:
    """Operands that meet on the device of the first that is not on the CPU."""
    there = [x for x in operands if x is not None and not x.is_cpu]
    if not there or len(there) == len(operands):
        return operands
    device, stay = there[0].device, operation in _READ_SHAPES
    return [
        x
        if x is None or not x.is_cpu or x.dim() == 0 or (stay and x.dtype == torch.int64)
        else x.to(device, non_blocking=True)
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
    if index.dim() == 0 and index.is_cpu:
        return x.select(axis, int(index))
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
    if (mode := a.get("mode", b"constant").decode()) != "constant":
        if any(pair != (0, 0) for pair in pairs[1:]):
            raise NotImplementedError(f"padding of mode {mode} along more than the last axis")
        return functional.pad(x, pairs[0], mode)
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


def _reduce_mean(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    over = a["axes"] if axes is None else axes.tolist()
    return x.mean(over, keepdim=bool(a.get("keepdims", 1)))


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
    **SPEECH,
    "Add": _simple(torch.add),
    "And": _simple(torch.logical_and),
    "Atan": _simple(torch.atan),
    "Cast": _cast,
    "Ceil": _simple(torch.ceil),
    "Clip": lambda a, x, low=None, high=None: torch.clamp(x, low, high),
    "Concat": lambda a, *x: torch.cat(x, a["axis"]),
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Cos": _simple(torch.cos),
    "CumSum": lambda a, x, axis: torch.cumsum(x, int(axis)),
    "Div": _divide,
    "Equal": _simple(torch.eq),
    "Erf": _simple(torch.erf),
    "Exp": _simple(torch.exp),
    "Expand": _expand,
    "Floor": _simple(torch.floor),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": lambda a, x, index: x[_on(index, x).unbind(-1)],
    "Greater": _simple(torch.gt),
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
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Relu": _simple(torch.relu),
    "Reshape": _reshape,
    "Round": _simple(torch.round),
    "ScatterND": _scatter_nd,
    "Shape": lambda a, x: torch.tensor(x.shape),
    "Sigmoid": _simple(torch.sigmoid),
    "Sin": _simple(torch.sin),
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
