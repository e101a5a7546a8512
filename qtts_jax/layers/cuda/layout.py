"""The order in which the persistent kernels read weights.

A kernel runs on BLOCKS blocks of WARPS warps. A block has some rows of every matrix, a warp of it
some columns of those rows. The weights of a block lie in the order in which it reads them, and a
tile of 16 x 16 in the order of the lanes' operands of the `mma.m16n8k16` instruction: lane 4 g + c
holds the rows g and g + 8 (the pairs `low` below), and the columns of a lane are neighbours.
Matrices of a layer that is wider than PIECE come in pieces of rows, and those in pieces of columns.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

BLOCKS, WARPS, CHUNK = 128, 16, 8192  # a chunk is counted in weights, 16 KiB in bfloat16
PIECE, FFN_PIECE = 1024, 3072


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
    pieces = range(out.shape[0] // PIECE)
    width = [slice(i * PIECE, (i + 1) * PIECE) for i in pieces]
    ffn = [slice(i * FFN_PIECE, (i + 1) * FFN_PIECE) for i in pieces]
    parts = [rows_of_16(qkv[:, columns], len(qkv) // BLOCKS) for columns in width]
    parts += [rows_of_8(out[rows]) for rows in width]
    parts += [_pairs(gate_up[:, rows, columns]) for rows in ffn for columns in width]
    parts += [rows_of_8(down[rows, columns]) for rows in width for columns in ffn]
    return jnp.concatenate(parts, axis=1)


def _pairs(gate_up: jax.Array) -> jax.Array:
    """[2, FFN_PIECE, PIECE]: a tile holds 8 rows of gate and the 8 of up that go with them."""
    rows = 2 * FFN_PIECE // BLOCKS
    pairs = gate_up.reshape(2, BLOCKS, rows // 16, 8, PIECE).transpose(1, 2, 0, 3, 4)
    return rows_of_16(pairs.reshape(2 * FFN_PIECE, PIECE), rows)


def layer_words(width: int, mixed: int, qkv: int) -> int:
    """8-byte words of the exchanges in `layer.cuh`.

    Args:
        mixed: numbers that attention gives, H h.
        qkv: rows of queries, keys and values together.
    """
    copies, ffn = 4, width // PIECE * FFN_PIECE
    return copies * (2 * width + ffn // 2 + mixed // 2) + qkv
