"""Make an ONNX graph smaller before it is run: less to interpret, the same values.

A graph that was quantised for a CPU rounds activations to 8 bits at run time. Here its integer
weights become floats once and nothing is rounded; the scales and biases that followed such an
operation go into its weights. What depends on constants alone is computed once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

Tensor = torch.Tensor
Operation = Callable[..., Any]

# Operations that are rewritten as others.
REWRITTEN = frozenset({
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeLinear",
    "MatMulInteger",
})  # fmt: skip
_FLOAT, _INT32 = 1, 6


@dataclass
class Node:
    """An operation of a graph, with the names of its values."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Model:
    """Nodes in the order in which they run.

    Attributes:
        kept: names of values that have to stay, for the caller gives or takes them.
    """

    nodes: list[Node]
    constants: dict[str, Tensor]
    kept: Collection[str]

    def rename(self, names: Mapping[str, str]) -> None:
        """Read other values instead of those named."""
        for node in self.nodes:
            for i, name in enumerate(node.inputs):
                while name in names:
                    name = names[name]
                node.inputs[i] = name

    def uses(self) -> Counter[str]:
        """How often each value is read."""
        read = Counter(name for node in self.nodes for name in node.inputs)
        return read + Counter(self.kept)

    def without(self, gone: Collection[int]) -> None:
        """Drop nodes by their `id`."""
        self.nodes = [node for node in self.nodes if id(node) not in gone]


def rewrite(model: Model, operations: Mapping[str, Operation]) -> None:
    """All that is below, in its order."""
    float_weights(model)
    drop_quantisation(model)
    read_scales(model)
    fold_constants(model, operations)
    square(model)
    absorb(model)
    normalise(model)
    angle(model)
    multiply_and_add(model)


def float_weights(model: Model) -> None:
    """Integer weights as floats without their zero points, scaled where the scale is constant."""
    tables = {node.outputs[0]: node for node in model.nodes if node.kind == "Gather"}
    constants, states = model.constants, set[str]()

    def real(weight: str, zero: str = "") -> Tensor:
        if weight not in constants:
            raise NotImplementedError(f"the quantised weight {weight} is not a constant")
        return constants[weight].float() - (constants[zero].float() if zero else 0.0)

    for node in model.nodes:
        weight = f"{node.outputs[0]}/weight"
        if node.kind in ("ConvInteger", "MatMulInteger"):
            constants[weight] = real(node.inputs[1], (node.inputs + [""] * 2)[3])
            node.kind = node.kind.removesuffix("Integer")
            node.inputs = [node.inputs[0], weight]
        elif node.kind == "DequantizeLinear":
            table, (_, scale, *zero) = tables[node.inputs[0]], node.inputs
            constants[weight] = real(table.inputs[0], *zero) * constants[scale]
            node.kind, node.attributes = "Gather", table.attributes
            node.inputs = [weight, table.inputs[1]]
        elif node.kind == "DynamicQuantizeLSTM":
            _to_lstm(node, real, constants)
            states.update(node.outputs[1:])
            node.outputs = node.outputs[:1]
    lost = (states - {""}) & set(model.uses())
    if lost:
        raise NotImplementedError(f"the last state of an LSTM is read: {sorted(lost)}")


def _to_lstm(node: Node, real: Callable[..., Tensor], constants: Mapping[str, Tensor]) -> None:
    """A node of kind `LSTM` whose weights are a module of PyTorch; operands x, h, c."""
    x, w, r, b, lengths, h, c, peephole, w_scale, w_zero, r_scale, r_zero = node.inputs
    if lengths or peephole or node.attributes["direction"] != b"bidirectional":
        raise NotImplementedError("an LSTM with lengths, peepholes or one direction")

    def gates(rows: Tensor) -> Tensor:
        """Gates i, o, f, c of ONNX as i, f, c, o."""
        i, o, f, c = rows.chunk(4)
        return torch.cat([i, f, c, o])

    def scaled(weight: str, scale: str, zero: str) -> Tensor:
        shape = (2, 1, -1)
        centred = constants[weight].float() - constants[zero].float().reshape(shape)
        return (centred * constants[scale].reshape(shape)).transpose(1, 2)

    inner, recurrent = scaled(w, w_scale, w_zero), scaled(r, r_scale, r_zero)
    module = torch.nn.LSTM(inner.shape[2], recurrent.shape[2], bidirectional=True)
    with torch.no_grad():
        for n, end in enumerate(("_l0", "_l0_reverse")):
            to, back = constants[b][n].chunk(2)
            for name, rows in zip(
                ("weight_ih", "weight_hh", "bias_ih", "bias_hh"),
                (inner[n], recurrent[n], to, back),
                strict=True,
            ):
                getattr(module, name + end).copy_(gates(rows))
    node.kind, node.inputs = "LSTM", [x, h, c]
    node.attributes = {"module": module.requires_grad_(False)}


def drop_quantisation(model: Model) -> None:
    """Activations stay as they are: of scale 1, and what was rounded to their scale is not."""
    of_scale, renamed = set[str](), dict[str, str]()
    gone = set[int]()
    for node in model.nodes:
        if node.kind == "DynamicQuantizeLinear":
            value, scale, _ = node.outputs
            renamed[value] = node.inputs[0]
            model.constants[scale] = torch.tensor(1.0)
            of_scale.add(scale)
            gone.add(id(node))
            continue
        varying = [name for name in node.inputs if name and name not in model.constants]
        scales = [name for name in node.inputs if name in of_scale]
        if not scales or not set(varying) <= of_scale:
            continue
        of_scale.update(node.outputs)
        if node.kind == "Floor" or (node.kind == "Cast" and node.attributes["to"] == _INT32):
            renamed[node.outputs[0]] = node.inputs[0]
            gone.add(id(node))
    model.without(gone)
    model.rename(renamed)


def read_scales(model: Model) -> None:
    """The factors of a `Resize`, which are constants, as an attribute: the device is not asked."""
    for node in model.nodes:
        if node.kind == "Resize":
            node.attributes = node.attributes | {"scales": model.constants[node.inputs[2]].tolist()}
            node.inputs = node.inputs[:1]


def fold_constants(model: Model, operations: Mapping[str, Operation]) -> None:
    """Compute what depends on constants alone."""
    gone = set[int]()
    for node in model.nodes:
        fixed = all(name in model.constants for name in node.inputs if name)
        if not fixed or node.kind.startswith("Random") or set(node.outputs) & set(model.kept):
            continue
        values = operations[node.kind](
            node.attributes, *(model.constants.get(name) for name in node.inputs)
        )
        if len(node.outputs) == 1:
            values = [values]
        model.constants |= dict(zip(node.outputs, values, strict=True))
        gone.add(id(node))
    model.without(gone)


def square(model: Model) -> None:
    """A power of two is a product."""
    for node in model.nodes:
        exponent = model.constants.get(node.inputs[1]) if node.kind == "Pow" else None
        if exponent is not None and exponent.dim() == 0 and float(exponent) == 2:
            node.kind, node.inputs = "Mul", [node.inputs[0]] * 2


def absorb(model: Model) -> None:
    """Factors and terms that follow a convolution or a projection go into its weights."""
    uses, gone = model.uses(), set[int]()
    readers = {name: node for node in model.nodes for name in node.inputs}
    for node in model.nodes:
        if node.kind not in ("Conv", "MatMul") or id(node) in gone:
            continue
        weight = model.constants.get(node.inputs[1])
        if weight is None or not weight.is_floating_point():
            continue
        if node.kind == "MatMul" and weight.dim() != 2:
            continue
        convolution = node.kind == "Conv"
        weight = weight if convolution else weight.T
        bias = torch.zeros(len(weight))
        if has_bias := len(node.inputs) > 2:
            bias = model.constants[node.inputs[2]]
        changed = False
        while uses[node.outputs[0]] == 1 and node.outputs[0] in readers:
            reader = readers[node.outputs[0]]
            if reader.kind == "Cast" and reader.attributes["to"] == _FLOAT:
                pass
            elif reader.kind in ("Add", "Mul"):
                [other] = [name for name in reader.inputs if name != node.outputs[0]]
                row = _row(model.constants.get(other), len(weight), convolution)
                if row is None:
                    break
                if reader.kind == "Mul":
                    weight = weight * row.reshape(-1, *[1] * (weight.dim() - 1))
                    bias = bias * row
                else:
                    bias, has_bias = bias + row, True
            else:
                break
            changed = True
            node.outputs = reader.outputs
            gone.add(id(reader))
        if changed:
            names = [f"{node.outputs[0]}/{end}" for end in ("weight", "bias")]
            model.constants |= dict(zip(names, (weight.contiguous(), bias), strict=True))
            node.kind = "Conv" if convolution else "Linear"
            node.inputs = [node.inputs[0], *names[: 1 + has_bias]]
    model.without(gone)


def _row(value: Tensor | None, size: int, channels_before_last: bool) -> Tensor | None:
    """A constant that is one number a channel as [size]; else None."""
    if value is None or not value.is_floating_point():
        return None
    if value.numel() == 1 and value.dim() <= 1:
        return value.reshape(1).expand(size)
    shapes = [(1, size, 1), (size, 1)] if channels_before_last else [(size,), (1, size)]
    return value.reshape(-1) if tuple(value.shape) in shapes else None


def normalise(model: Model) -> None:
    """Mean, difference, square, mean, a small number, root and quotient are one operation.

    Only over the last of three axes, where `layer_norm` can do it.
    """
    uses, gone = model.uses(), set[int]()
    makers = {name: node for node in model.nodes for name in node.outputs}

    def made(name: str, kind: str, times: int = 1) -> Node:
        node = makers[name]
        if node.kind != kind or uses[name] != times:
            raise KeyError(name)
        return node

    def over_last(node: Node) -> bool:
        axes = model.constants[node.inputs[1]].tolist() if len(node.inputs) > 1 else []
        return axes == [2] and bool(node.attributes.get("keepdims", 1))

    for last in model.nodes:
        if last.kind != "Div":
            continue
        try:
            difference = made(last.inputs[0], "Sub", 3)
            root = made(last.inputs[1], "Sqrt")
            term = made(root.inputs[0], "Add")
            variance = made(term.inputs[0], "ReduceMean")
            product = made(variance.inputs[0], "Mul")
            mean = made(difference.inputs[1], "ReduceMean")
            small = float(model.constants[term.inputs[1]])
        except KeyError:
            continue
        same = product.inputs == [difference.outputs[0]] * 2
        if not same or mean.inputs[0] != difference.inputs[0]:
            continue
        if not (over_last(mean) and over_last(variance)):
            continue
        last.kind, last.inputs, last.attributes = "Normalise", mean.inputs[:1], {"epsilon": small}
        gone |= {id(node) for node in (difference, root, term, variance, product, mean)}
    model.without(gone)


def angle(model: Model) -> None:
    """The arc tangent of a quotient, moved by pi where x is negative, is that of two numbers.

    It is pi where y is 0 and x negative, as training had it; there the quotient depends on the
    sign of a rounding error, and 0 / 0 is not a number.
    """
    makers = {name: node for node in model.nodes for name in node.outputs}

    def made(name: str, kind: str) -> list[str]:
        node = makers[name]
        if node.kind != kind:
            raise KeyError(name)
        return node.inputs

    for last in model.nodes:
        if last.kind != "Where":
            continue
        try:
            less, moved, plain = last.inputs
            y, x = made(made(plain, "Atan")[0], "Div")
            greater, up, down = made(moved, "Where")
            matches = [
                (made(less, "Less")[0], x),
                (made(greater, "Greater")[0], y),
                (made(up, "Add")[0], plain),
                (made(down, "Sub")[0], plain),
            ]
        except KeyError:
            continue
        if all(one == other for one, other in matches):
            last.kind, last.inputs = "Angle", [y, x]


def multiply_and_add(model: Model) -> None:
    """A sum with a product that nothing else reads is one operation."""
    uses, gone = model.uses(), set[int]()
    makers = {name: node for node in model.nodes for name in node.outputs}
    for node in model.nodes:
        if node.kind != "Add":
            continue
        for product, term in (node.inputs, node.inputs[::-1]):
            maker = makers.get(product)
            if maker is not None and maker.kind == "Mul" and uses[product] == 1:
                node.kind, node.inputs = "MultiplyAdd", [term, *maker.inputs]
                gone.add(id(maker))
                break
    model.without(gone)


def of_shapes_alone(model: Model, inputs: Collection[str]) -> set[str]:
    """Names that decide how long a `NonZero` is, where these follow from shapes and constants.

    Computed on the CPU, they do not make it wait for the device.
    """
    makers = {name: node for node in model.nodes for name in node.outputs}

    def ancestors(name: str) -> set[str] | None:
        found, waiting = set[str](), [name]
        while waiting:
            name = waiting.pop()
            if name in inputs:
                return None
            found.add(name)
            if name in makers and makers[name].kind != "Shape":
                waiting += [other for other in makers[name].inputs if other and other not in found]
        return found

    names = set[str]()
    for node in model.nodes:
        if node.kind == "NonZero":
            names |= ancestors(node.inputs[0]) or set()
    return names
