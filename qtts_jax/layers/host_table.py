"""A table that stays in the host's memory: a request needs few of its rows, and only once.

The text embedding is the largest array of all, a third of the memory of a small model; a device
has better uses for it.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from qtts_jax.layers.quantized_weights import Weight


@jax.tree_util.register_static
class HostTable:
    """Rows in the host's memory, standing for a table in a tree of parameters.

    It has no leaves, so a program can be given the tree but cannot read it; whoever calls a program
    that does puts `rows` in its place. Tables of equal shapes are equal: they have the same
    programs.

    Args:
        table: [V, ...] of numpy arrays, or of `jax.ShapeDtypeStruct` where only shapes are asked
            for.
    """

    def __init__(self, table: Weight) -> None:
        self.table = table
        leaves, tree = jax.tree.flatten(table)
        self._kind = (tree, tuple((x.shape, np.dtype(x.dtype)) for x in leaves))

    @property
    def dtype(self) -> Any:
        """Of the weight it stands for."""
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
