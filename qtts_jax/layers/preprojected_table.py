"""An embedding table that also stores its rows after a linear map.

Where a map is applied to rows of a table only, it can be applied to the full table once; then no
decoding step reads its weights.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from qtts_jax.layers.quantized_weights import Weight, dense, product


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Projected:
    """Rows of a table and their projections, in the place of the table in a parameter tree.

    Attributes:
        raw: [*rows, D], the table itself.
        rows: [*rows, N], its rows after the map.
    """

    raw: Weight
    rows: jax.Array

    def __getitem__(self, at: Any) -> Projected:
        """Select rows."""
        return Projected(self.raw[at], self.rows[at])

    @property
    def dtype(self) -> Any:
        """Type of the table it replaces."""
        return self.raw.dtype


Table = Weight | Projected


@jax.jit
def project(table: Weight, kernel: Weight, bias: jax.Array) -> Projected:
    """Project a table [L, V, D] with `kernel` [N, D] and `bias` [N]."""
    # One table at a time, so that a quantised one is never dequantised as a whole.
    rows = jax.lax.map(lambda one: product(dense(one), kernel) + bias, table)  # [L, V, N]
    return Projected(table, rows)


def raw(table: Table) -> jax.Array:
    """The rows [..., D] before the projection."""
    return dense(table.raw if isinstance(table, Projected) else table)
