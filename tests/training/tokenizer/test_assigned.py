"""Counts and sums of a codebook in blocks of entries against their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.layers import rvq
from qtts_jax.training.tokenizer.assigned import count_and_sum
from qtts_jax.training.tokenizer.codebook_ema import empty, learn
from qtts_jax.training.tokenizer.config import CodebookTraining

N, V, D = 40, 23, 3


def one_hot_definition(vectors, codes, entries):
    chosen = np.asarray(codes)[:, None] == np.arange(entries)
    return chosen.sum(axis=0), chosen.T.astype(np.float64) @ vectors


@pytest.mark.parametrize("table", [1, N, 7 * N, 12 * N, 1 << 25])
def test_blocks_of_any_size_are_the_one_hot_product(table, monkeypatch):
    """Blocks of 1, 1, 7, 12 entries (the last ones not full), and all at once."""
    monkeypatch.setattr(rvq, "TABLE_VALUES", table)
    rng = np.random.default_rng(0)
    # Sums of small integers are exact in any order.
    vectors = rng.integers(-50, 50, (N, D)).astype(np.float32)
    codes = rng.integers(-1, V, N).astype(np.int32)
    counts, sums = jax.jit(lambda x, c: count_and_sum(x, c, V))(vectors, codes)
    wanted_counts, wanted_sums = one_hot_definition(vectors, codes, V)
    assert wanted_counts.sum() < N  # some do not count
    np.testing.assert_array_equal(counts, wanted_counts)
    np.testing.assert_array_equal(sums, wanted_sums)


def test_a_codebook_learns_the_same_in_blocks(monkeypatch):
    """The k-means start, the search, the averages and the revival of entries."""
    x = np.random.default_rng(1).standard_normal((2, N, D)).astype(np.float32)
    padded = jnp.arange(N) < jnp.array([N, 9])[:, None]
    entries = 2 * N // 4  # k-means fills them all: copies of an entry would be ties
    settings = CodebookTraining(dead=0.5, start_iterations=4)

    def run():
        def step(x):
            book = empty(1, entries, D)
            for i, real in enumerate((None, padded)):
                out, book, revived = learn(
                    book, x, jax.random.key(i), settings, accumulate=1, last=True, real=real
                )
            return out.codes, book, revived

        return jax.device_get(jax.jit(step)(x))

    whole = run()
    monkeypatch.setattr(rvq, "TABLE_VALUES", 5 * 2 * N)
    assert rvq.entry_blocks(2 * N, entries) == (4, 5)
    blocks = run()
    np.testing.assert_array_equal(blocks[0], whole[0])
    assert blocks[2] == whole[2] > 0
    for name, value in whole[1].items():
        np.testing.assert_allclose(blocks[1][name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_no_table_of_all_vectors_by_all_entries_is_in_memory():
    """12,000 vectors and 32,768 entries: such a table takes 1.5 GB."""
    width = 16
    book = jax.eval_shape(lambda: empty(1, 32_768, width))
    x = jax.ShapeDtypeStruct((1, 12_000, width), jnp.float32)

    def step(book, x, key):
        return learn(
            book, x, key, CodebookTraining(), accumulate=1, last=jnp.asarray(True), initialized=True
        )

    program = jax.jit(step).lower(book, x, jax.random.key(0)).compile()
    assert program.memory_analysis().temp_size_in_bytes < 400e6
