"""Many small arrays of a batch as one, because each copy to a device costs the host some 30 µs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np


class Layout(NamedTuple):
    """Structure of the packed tree, and shape of a row and dtype of every leaf."""

    tree: Any
    leaves: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]


def pack(tree: Any) -> tuple[np.ndarray, Layout]:
    """The bytes of all arrays of a tree, side by side in each row.

    Args:
        tree: numpy arrays with the same number of rows first.

    Returns:
        [B, bytes] uint8, and how to read them.
    """
    arrays, structure = jax.tree.flatten(tree)
    parts = [
        np.ascontiguousarray(x).reshape(len(x), math.prod(x.shape[1:])).view(np.uint8)
        for x in arrays
    ]
    leaves = tuple((x.shape[1:], x.dtype) for x in arrays)
    return np.concatenate(parts, axis=1), Layout(structure, leaves)


def unpack(packed: jax.Array, layout: Layout) -> Any:
    """The tree of `pack`, in a program.

    Args:
        packed: [B, bytes] uint8.
    """
    rows, begin, leaves = packed.shape[0], 0, []
    for shape, dtype in layout.leaves:
        end = begin + math.prod(shape) * dtype.itemsize
        row = packed[:, begin:end]
        if dtype == np.bool_:
            leaf = row != 0
        elif dtype.itemsize == 1:
            leaf = jax.lax.bitcast_convert_type(row, dtype)
        else:
            words = row.reshape(rows, math.prod(shape), dtype.itemsize)
            leaf = jax.lax.bitcast_convert_type(words, dtype)
        leaves.append(leaf.reshape(rows, *shape))
        begin = end
    return jax.tree.unflatten(layout.tree, leaves)
