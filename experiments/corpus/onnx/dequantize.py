"""A graph that was quantised for a CPU, in floats.

It rounds activations to 8 bits at run time. Here its integer weights become floats once, and
nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from experiments.corpus.onnx.graph import Model, Node, Tensor

# Operations that are rewritten as others.
REWRITTEN = frozenset({
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeLinear",
    "MatMulInteger",
})  # fmt: skip
_INT32 = 6


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
