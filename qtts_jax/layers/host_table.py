"""An embedding table in host memory, of which a request copies only the rows it needs.

The text embedding is the largest array, a third of a small model; in host memory it leaves that
device memory free.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from qtts_jax.layers.quantized_weights import Weight


@jax.tree_util.register_static
class HostTable:
    """A table in host memory, in the place of an array in a parameter tree.

    It has no leaves, so a compiled program accepts the tree but cannot read the table; for a
    program that reads it, replace it by `rows` first. Tables of equal shapes compare equal, so they
    share compiled programs.

    Args:
        table: [V, ...] of numpy arrays, or of `jax.ShapeDtypeStruct` for shapes alone.
    """

    def __init__(self, table: Weight) -> None:
        self.table = table
        leaves, tree = jax.tree.flatten(table)
        self._kind = (tree, tuple((x.shape, np.dtype(x.dtype)) for x in leaves))

    @property
    def dtype(self) -> Any:
        """Type of the table it replaces."""
        return self.table.dtype

    def rows(self, ids: np.ndarray) -> Weight:
        """The rows [n, ...] of ids [n]; row 0 for negative ones."""

        def some(x: Any) -> Any:
            if isinstance(x, jax.ShapeDtypeStruct):
                return jax.ShapeDtypeStruct((len(ids), *x.shape[1:]), x.dtype)
            return x[np.maximum(ids, 0)]

        chosen: Weight = jax.tree.map(some, self.table)
        return chosen

    def __getitem__(self, at: Any) -> Weight:
        raise TypeError("this table is in the host's memory; put the rows that are needed here.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HostTable) and self._kind == other._kind

    def __hash__(self) -> int:
        return hash(self._kind)
