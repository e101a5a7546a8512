"""A table of rows that also holds what a linear map makes of each.

Where only rows of a table ever enter a map, the map can be taken of the whole table once; then no
step reads its weights.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from qtts_jax.layers.quantized_weights import Weight, dense, product


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Projected:
    """Some rows of a table, standing for it in a tree of parameters.

    Attributes:
        raw: [*rows, D], the table itself.
        rows: [*rows, N], its rows after the map.
    """

    raw: Weight
    rows: jax.Array

    def __getitem__(self, at: Any) -> Projected:
        """Some of the rows."""
        return Projected(self.raw[at], self.rows[at])

    @property
    def dtype(self) -> Any:
        """Of the weight it stands for."""
        return self.raw.dtype


Table = Weight | Projected


@jax.jit
def project(table: Weight, kernel: Weight, bias: jax.Array) -> Projected:
    """The table [L, V, D] with its rows after the map of `kernel` [N, D] and `bias` [N]."""
    # One table at a time, so that a quantised one is never dequantised as a whole.
    rows = jax.lax.map(lambda one: product(dense(one), kernel) + bias, table)  # [L, V, N]
    return Projected(table, rows)


def raw(table: Table) -> jax.Array:
    """The rows [..., D] as they are in the table."""
    return dense(table.raw if isinstance(table, Projected) else table)
