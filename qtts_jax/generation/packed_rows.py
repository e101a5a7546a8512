"""Many small arrays of a batch as one, because each copy to a device costs the host some 30 µs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from qtts_jax.functional import Params
from qtts_jax.generation.batch import HostBatch
from qtts_jax.generation.device_params import gather_text_rows


class Layout(NamedTuple):
    """Structure of the packed tree, and shape of a row and dtype of every leaf."""

    tree: Any
    leaves: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]


def pack(tree: Any) -> tuple[np.ndarray, Layout]:
    """All arrays of a tree as 32-bit words, side by side in each row.

    Args:
        tree: numpy arrays of bool or of 32-bit numbers, with the same number of rows first.

    Returns:
        [B, words] int32, and how to read them.
    """
    arrays, structure = jax.tree.flatten(tree)
    words = [
        np.ascontiguousarray(x.astype(np.int32) if x.dtype == np.bool_ else x)
        .view(np.int32)
        .reshape(len(x), math.prod(x.shape[1:]))
        for x in arrays
    ]
    leaves = tuple((x.shape[1:], x.dtype) for x in arrays)
    return np.concatenate(words, axis=1), Layout(structure, leaves)


def pack_batch(params: Params, inputs: HostBatch) -> tuple[Params, np.ndarray, Layout]:
    """The inputs of the prefill as one array, with text ids as the parameters' table needs them.

    Returns:
        parameters for the program, [B, words] int32, and how to read them.
    """
    params, text, trailing, pad = gather_text_rows(
        params, inputs.prompt.text, inputs.trailing, inputs.pad
    )
    prompt = inputs.prompt._replace(text=text)
    return params, *pack(inputs._replace(prompt=prompt, trailing=trailing, pad=pad))


def unpack(packed: jax.Array, layout: Layout) -> Any:
    """The tree of `pack`, in a program.

    Args:
        packed: [B, words] int32.
    """
    begin, leaves = 0, []
    for shape, dtype in layout.leaves:
        end = begin + math.prod(shape)
        words = packed[:, begin:end].reshape(packed.shape[0], *shape)
        is_flag = dtype == np.bool_
        leaves.append(words != 0 if is_flag else jax.lax.bitcast_convert_type(words, dtype))
        begin = end
    return jax.tree.unflatten(layout.tree, leaves)
