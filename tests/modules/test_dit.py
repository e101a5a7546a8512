"""Block attention against a dense mask, and the ways to feed a diffusion transformer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.functional import abstract, bind
from qtts_jax.layers.stream_position import Span, full_span
from qtts_jax.modules.dit import DiT, attend_blocks, time_features
from tests.support.decoders_25hz import CASES_BY_NAME, UNOPTIMIZED, decoder_config

BLOCKS = 7


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module", params=["ten_steps", "both_ways"])
def model(request):
    """Configuration, and a function that builds the network inside a jitted function."""
    config = decoder_config(CASES_BY_NAME[request.param].config).dit
    graphdef, shapes = abstract(DiT, config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape) / leaf.shape[-1] ** 0.5 / 2),
        shapes,
    )
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    return config, lambda p: bind(graphdef, p), params


def steps_of(model, x, sizes, *, delayed, ends):
    """The network in pieces of so many blocks: [B, sum(sizes) * block, M], delay taken off."""
    config, make, params = model

    def step(params, x, state, span):
        dit = make(params)
        first = jax.tree.map(lambda t: t[0], dit.modulations(time_features(np.float32([0.3]))))
        return dit.step(x, first, state, span)

    step = jax.jit(step, compiler_options=UNOPTIMIZED)
    dit = make(params)
    late = dit.ahead * config.block if delayed else 0
    state, start, pieces = dit.init_state(len(x), jnp.float32, delayed=delayed), 0, []
    for size in sizes:
        stop = start + size * config.block
        span = Span(jnp.full((len(x),), start), jnp.asarray(ends))
        y, after = step(params, x[:, start:stop], state, span)
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
        pieces, state, start = [*pieces, np.asarray(y)], after, stop
    return np.concatenate(pieces, axis=1)[:, late:]


def test_block_attention_equals_dense_attention_under_a_mask():
    rng, block, heads, width = np.random.default_rng(1), 3, 2, 4
    for back, ahead, count in ((0, 0, 4), (1, 0, 4), (0, 1, 4), (1, 1, 5), (1, 1, 1)):
        frames = count * block
        q, k, v = rng.standard_normal((3, 2, frames, heads, width)).astype(np.float32)
        ends = np.array([frames, frames - 2])
        number = np.arange(frames) // block
        apart = number[None] - number[:, None]
        mask = (apart >= -back) & (apart <= ahead) & (np.arange(frames) < ends[:, None, None])
        scores = np.einsum("bqhd,bkhd->bhqk", q, k) / width**0.5
        scores = np.where(mask[:, None], scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        expected = np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)
        filler = ((0, 0), (back * block, ahead * block), (0, 0), (0, 0))
        real = np.pad(np.arange(frames) < ends[:, None], filler[:2])
        attend = jax.jit(attend_blocks, static_argnums=4, compiler_options=UNOPTIMIZED)
        y = attend(q, np.pad(k, filler), np.pad(v, filler), real, block)
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sizes", [[1] * (BLOCKS + 2), [2, 3, 1, 3]])
def test_delayed_steps_equal_the_whole(model, sizes):
    config = model[0]
    rng, frames = np.random.default_rng(2), BLOCKS * config.block
    x = rng.standard_normal((2, frames, config.width)).astype(np.float32)
    ends = np.array([frames, frames - 4])
    expected = steps_of(model, x, [BLOCKS], delayed=False, ends=ends)
    padded = np.pad(x, ((0, 0), (0, 2 * config.block), (0, 0)), constant_values=3.0)
    y = steps_of(model, padded, sizes, delayed=True, ends=ends)
    for row, end in enumerate(ends):
        np.testing.assert_allclose(y[row, :end], expected[row, :end], rtol=0, atol=2e-5)


def test_short_rows_are_what_they_are_alone(model):
    config = model[0]
    rng, frames, short = np.random.default_rng(3), BLOCKS * config.block, config.block + 3
    x = rng.standard_normal((2, frames, config.width)).astype(np.float32)
    both = steps_of(model, x, [BLOCKS], delayed=False, ends=[frames, short])
    alone = steps_of(model, x[:, : 2 * config.block], [2], delayed=False, ends=[short, short])
    np.testing.assert_allclose(both[1, :short], alone[1, :short], rtol=0, atol=2e-5)
    assert full_span(2, frames, jnp.array([frames, short])).inside(frames).sum() == frames + short


def test_time_features_are_sines_then_cosines():
    features = time_features(np.array([0.0, 0.5], np.float32))
    assert features.shape == (2, 256)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features[0, :128], 0)
    np.testing.assert_array_equal(features[0, 128:], 1)
    slowest = 1000 * 0.5 * 1e-4
    assert features[1, 127] == pytest.approx(np.sin(slowest), abs=1e-6)
    assert features[1, 128] == pytest.approx(np.cos(500.0), abs=1e-4)
