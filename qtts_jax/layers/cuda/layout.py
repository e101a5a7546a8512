"""The order in which the persistent kernels read weights.

A kernel runs on BLOCKS blocks of WARPS warps. A block has some rows of every matrix, a warp of it
some columns of those rows. The weights of a block lie in the order in which it reads them, and a
tile of 16 x 16 in the order of the lanes' operands of the `mma.m16n8k16` instruction: lane 4 g + c
holds the rows g and g + 8 (the pairs `low` below), and the columns of a lane are neighbours.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

BLOCKS, WARPS, CHUNK = 128, 16, 8192  # a chunk is counted in weights, 16 KiB in bfloat16


def rows_of_16(matrix: jax.Array, rows: int) -> jax.Array:
    """[BLOCKS * rows, columns] in tiles of 16 rows: [BLOCKS, chunks, CHUNK].

    Args:
        rows: of a block, a multiple of 16.
    """
    # block, tile, low, g | warp, c, two pairs of tiles, pair of columns, column
    tiles = matrix.reshape(BLOCKS, rows // 16, 2, 8, WARPS, 4, 2, 2, 2, 2)
    return tiles.transpose(0, 1, 6, 4, 7, 3, 5, 8, 2, 9).reshape(BLOCKS, -1, CHUNK)


def rows_of_8(matrix: jax.Array) -> jax.Array:
    """[BLOCKS * 8, columns] in tiles of 8 rows by two blocks of columns: as `rows_of_16`."""
    pairs = matrix.shape[1] // WARPS // 64
    # block, g | warp, low, c, pairs of tiles, tile, pair of columns, column
    tiles = matrix.reshape(BLOCKS, 8, WARPS, 2, 4, pairs, 2, 2, 2)
    return tiles.transpose(0, 5, 2, 6, 1, 4, 7, 3, 8).reshape(BLOCKS, -1, CHUNK)


@jax.jit
def layer(qkv: jax.Array, out: jax.Array, gate_up: jax.Array, down: jax.Array) -> jax.Array:
    """All matrices of a transformer layer as one stream: [BLOCKS, chunks, CHUNK].

    Args:
        qkv: [K (G+2) h, D], by key/value head: queries, key, value.
        out: [D, H h].
        gate_up: [2, F, D].
        down: [D, F].
    """
    width, ffn = out.shape[0], gate_up.shape[1]
    # A tile holds 8 rows of gate and the 8 of up that they are multiplied with.
    pairs = gate_up.reshape(2, BLOCKS, ffn // BLOCKS // 8, 8, width).transpose(1, 2, 0, 3, 4)
    parts = (
        rows_of_16(qkv, qkv.shape[0] // BLOCKS),
        rows_of_8(out),
        rows_of_16(pairs.reshape(2 * ffn, width), 2 * ffn // BLOCKS),
        rows_of_8(down),
    )
    return jnp.concatenate(parts, axis=1)
