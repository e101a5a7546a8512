"""An ONNX graph in memory: nodes, constants, and who reads what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

Tensor = torch.Tensor


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
