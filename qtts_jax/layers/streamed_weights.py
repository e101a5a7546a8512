"""Weights in the order in which a persistent kernel streams them, beside the plain ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from qtts_jax.layers.quantized_weights import Weight


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Streamed:
    """The last matrix of a model in a parameter tree, with the packed weights of the whole model.

    One row of a batch runs by the kernel, more rows and other programs by the plain weights.

    Attributes:
        weight: the matrix itself.
        stream: arrays that the kernel reads, by name.
    """

    weight: Weight
    stream: dict[str, jax.Array]

    def __getitem__(self, at: Any) -> Streamed:
        """All of it: `nnx.Param` indexes its value with an ellipsis."""
        assert at is Ellipsis
        return self

    @property
    def dtype(self) -> Any:
        """Type of the matrix it replaces."""
        return self.weight.dtype


def plain(weight: Weight | Streamed) -> Weight:
    """The matrix itself."""
    return weight.weight if isinstance(weight, Streamed) else weight
