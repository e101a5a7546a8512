"""Residual vector quantization against a plain numpy version of its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qtts_jax.configs.tokenizer_12hz import QuantizerConfig
from qtts_jax.errors import ConfigError
from qtts_jax.layers.rvq import MIN_USAGE, RVQ, SplitRVQ, divide, entry_blocks, nearest

CONFIG = QuantizerConfig(books=6, semantic=2, entries=12, width=4, model_width=10)


def make(config=CONFIG, **options):
    options = {"trainable_start": True, "projected": True} | options
    quantizer = SplitRVQ(config, **options, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    for rvq in (quantizer.semantic, quantizer.acoustic):
        rvq.usage[...] = jnp.asarray(rng.uniform(0, 3, rvq.usage.shape), jnp.float32)
        rvq.usage[...] = rvq.usage[...].at[:, 0].set(0.0)  # an entry that was never used
        rvq.embed_sum[...] = rvq.embed_sum[...] * jnp.maximum(rvq.usage[...], 1e-5)[..., None]
    return quantizer


def entries(rvq):
    usage = np.maximum(np.asarray(rvq.usage[...]), MIN_USAGE)
    return np.asarray(rvq.embed_sum[...]) / usage[..., None]


def quantize(x, rvq, books):
    """Codes [T, books] by searching every entry of every book."""
    residual = x @ np.asarray(rvq.input_projection.kernel[...]).T
    codes = []
    for book in entries(rvq)[:books]:
        distance = np.linalg.norm(residual[:, None] - book[None], axis=-1)
        codes.append(np.argmin(distance, axis=1))
        residual = residual - book[codes[-1]]
    return np.stack(codes, axis=-1)


@pytest.mark.parametrize("books", [1, 2, 3, 6])
def test_both_parts_quantize_the_whole_vector(books):
    quantizer = make()
    x = np.random.default_rng(1).standard_normal((2, 7, 10)).astype(np.float32)
    codes = jax.jit(quantizer.encode, static_argnums=1)(x, books)
    assert codes.dtype == jnp.int32
    for row in range(2):
        expected = [
            quantize(x[row], quantizer.semantic, min(books, 2)),
            *([quantize(x[row], quantizer.acoustic, books - 2)] if books > 2 else []),
        ]
        np.testing.assert_array_equal(codes[row], np.concatenate(expected, axis=-1))


@pytest.mark.parametrize("semantic", [0, 7])
def test_more_semantic_books_than_there_are_is_refused(semantic):
    with pytest.raises(ConfigError, match="between 1 and num_quantizers"):
        QuantizerConfig(books=6, semantic=semantic, entries=12, width=4, model_width=10)


def test_decoding_adds_the_entries_of_both_parts():
    quantizer = make()
    codes = np.random.default_rng(2).integers(0, 12, (2, 5, 6))
    expected = sum(
        sum(entries(rvq)[i][codes[..., at + i]] for i in range(n))
        @ np.asarray(rvq.output_projection.kernel[...]).T
        for rvq, at, n in ((quantizer.semantic, 0, 2), (quantizer.acoustic, 2, 4))
    )
    with jax.default_matmul_precision("highest"):
        decoded = quantizer.decode(jnp.asarray(codes), jnp.float32)
    np.testing.assert_allclose(decoded, expected, atol=1e-5 * np.abs(expected).max())


def test_more_books_come_closer():
    config = QuantizerConfig(books=9, semantic=1, entries=64, width=4, model_width=4)
    quantizer = SplitRVQ(config, trainable_start=False, projected=False, rngs=nnx.Rngs(0))
    scale = 0.6 ** jnp.arange(8)[:, None, None]
    quantizer.acoustic.embed_sum[...] = quantizer.acoustic.embed_sum[...] * scale
    x = jnp.asarray(np.random.default_rng(3).standard_normal((1, 50, 4)), jnp.float32)
    codes = quantizer.encode(x, 9)
    errors = [
        float(jnp.mean((x - quantizer.acoustic.decode(codes[..., 1 : 1 + n], jnp.float32)) ** 2))
        for n in (1, 3, 8)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


def test_width_that_needs_no_projection_has_none():
    config = QuantizerConfig(books=2, semantic=1, entries=8, width=4, model_width=4)
    rvq = SplitRVQ(config, trainable_start=False, projected=False, rngs=nnx.Rngs(0)).semantic
    assert rvq.input_projection is None
    assert rvq.output_projection is None
    assert rvq.initialized is None
    np.testing.assert_array_equal(
        rvq.decode(jnp.array([[[3]]]), jnp.float32)[0, 0], rvq.embed_sum[...][0, 3]
    )


def test_equally_near_entries_give_the_first():
    table = jnp.array([[5.0, 5.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert nearest(jnp.array([[0.0, 3.0], [0.9, 0.0]]), table).tolist() == [1, 1]


@pytest.mark.parametrize("values", [1, 7 * 30, 16 * 30])
def test_search_in_blocks_of_entries_finds_the_same(values, monkeypatch):
    """Blocks of 1, 7 and 16 entries; of equal entries in different blocks the first one wins."""
    rng = np.random.default_rng(3)
    table = rng.standard_normal((20, 4)).astype(np.float32)
    table[19] = table[2]
    x = rng.standard_normal((3, 10, 4)).astype(np.float32)
    x[0, :2] = table[2]
    whole = np.asarray(jax.jit(lambda x: nearest(x, table))(x))
    monkeypatch.setattr("qtts_jax.layers.rvq.TABLE_VALUES", values)
    assert entry_blocks(30, 20)[0] > 1
    found = np.asarray(jax.jit(lambda x: nearest(x, table))(x))
    np.testing.assert_array_equal(found, whole)
    assert found.dtype == np.int32 and found[0, 0] == 2 and len(np.unique(found)) > 10


def test_near_tie_far_from_the_origin_is_still_resolved():
    # |x|^2 is 3e4, so rounding it would drown a gap of 1e-3 between squared distances.
    x = np.full((1, 8), 60.0, np.float32)
    a, b = x[0].copy(), x[0].copy()
    a[0] += 0.5
    b[0] += 0.499
    assert nearest(jnp.asarray(x - 60), jnp.asarray(np.stack([a, b]) - 60)).tolist() == [1]


def test_unused_entry_is_divided_by_the_smallest_count():
    np.testing.assert_allclose(divide(jnp.ones((2, 3)), jnp.array([0.0, 2.0]))[:, 0], [1e5, 0.5])


def test_codes_are_found_in_float32_whatever_the_input():
    rvq = RVQ(CONFIG, 3, trainable_start=False, projected=False, rngs=nnx.Rngs(0))
    x = np.random.default_rng(4).standard_normal((1, 20, 4))
    narrow = jnp.asarray(x, jnp.bfloat16)
    np.testing.assert_array_equal(rvq.encode(narrow, 3), rvq.encode(narrow.astype(jnp.float32), 3))
    assert rvq.decode(rvq.encode(narrow, 3), jnp.bfloat16).dtype == jnp.bfloat16
