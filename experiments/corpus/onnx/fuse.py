"""Fewer operations of a graph for the same values.

Scales and biases that follow a convolution or a projection go into its weights; what depends on
constants alone is computed once; several operations become one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from experiments.corpus.onnx.graph import Model, Node, Tensor

Operation = Callable[..., Any]
_FLOAT = 1


def read_scales(model: Model) -> None:
    """Make the factors of a `Resize`, which are constants, an attribute: nothing is copied back."""
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


def fuse(model: Model, operations: Mapping[str, Operation]) -> None:
    """All of the above, in its order."""
    read_scales(model)
    fold_constants(model, operations)
    square(model)
    absorb(model)
    normalise(model)
    angle(model)
    multiply_and_add(model)
