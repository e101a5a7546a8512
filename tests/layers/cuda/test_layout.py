"""The order of packed weights: every lane of a block finds the operands of its products."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.layers.cuda import layout

# Weights of a warp in a chunk, and of a tile.
OF_WARP, TILE = layout.CHUNK // layout.WARPS, 256


def places(chunks):
    """Chunk, warp, tile, lane and element of every weight of a block, [chunks, CHUNK] each."""
    chunk, i = np.meshgrid(np.arange(chunks), np.arange(layout.CHUNK), indexing="ij")
    tile = chunk * 2 + i % OF_WARP // TILE
    return i // OF_WARP, tile, i % TILE // 8, i % 8


def numbered(rows, columns):
    """A matrix whose elements are their own places."""
    return np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)


def operand(lane, element):
    """Row pair, row and column of an element in the A operand of `mma.m16n8k16`."""
    return lane // 4, element // 2 % 2, lane % 4, 2 * (element // 4) + element % 2


@pytest.mark.parametrize("rows", [16, 32])
def test_rows_of_16(rows):
    matrix = numbered(layout.BLOCKS * rows, 1024)
    packed = np.asarray(layout.rows_of_16(jnp.asarray(matrix), rows))
    warp, tile, lane, element = places(packed.shape[1])
    g, low, c, k = operand(lane, element)
    for block in (0, 77):
        row = block * rows + tile // 4 * 16 + g + 8 * low
        column = 64 * warp + 16 * c + 4 * (tile % 4) + k
        np.testing.assert_array_equal(packed[block], matrix[row, column])


@pytest.mark.parametrize("columns", [2048, 3072])
def test_rows_of_8(columns):
    matrix = numbered(layout.BLOCKS * 8, columns)
    packed = np.asarray(layout.rows_of_8(jnp.asarray(matrix)))
    warp, tile, lane, element = places(packed.shape[1])
    g, low, c, k = operand(lane, element)
    of_warp = columns // layout.WARPS
    of_lane = of_warp // 8
    for block in (0, 101):
        column = of_warp * warp + of_warp // 2 * low + of_lane * c + 4 * tile + k
        np.testing.assert_array_equal(packed[block], matrix[block * 8 + g, column])


@pytest.mark.parametrize("width", [1024, 2048])
def test_a_layer_is_all_its_weights(width):
    ffn, mixed, rows = 3 * width, 2048, 4096
    shapes = ((rows, width), (width, mixed), (2, ffn, width), (width, ffn))
    ends = np.cumsum([0, *(np.prod(shape) for shape in shapes)])
    parts = [
        jnp.arange(begin, begin + np.prod(shape), dtype=jnp.int32).reshape(shape)
        for begin, shape in zip(ends, shapes, strict=False)
    ]
    packed = np.asarray(layout.layer(*parts))
    # Each number once: as many as there are places, and none is missing (sorting takes seconds).
    assert packed.size == ends[-1] and packed.min() == 0 and packed.max() == ends[-1] - 1
    found = np.zeros(packed.size, bool)
    found[packed] = True
    assert found.all()
    # The parts follow one another in the stream of every block.
    at = 0
    for begin, end in itertools.pairwise(ends):
        chunks = (end - begin) // layout.BLOCKS // layout.CHUNK
        part = packed[:, at : at + chunks]
        assert part.min() == begin and part.max() == end - 1
        at += chunks
