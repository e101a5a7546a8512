"""Anti-aliased stages: transposed convolutions by definition, and streams with a delay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qtts_jax.layers.stream_position import Span, full_span
from qtts_jax.modules.bigvgan import AMPStage, CentredUpsample
from tests.support.contract import reach

ROWS, STEPS = 2, 14
UNOPTIMIZED = {"xla_backend_optimization_level": 0}


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def inputs(channels):
    shape = (ROWS, STEPS, channels)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def feed(layer, x, sizes, lengths=None):
    """Steps over pieces of `sizes`, with NaN behind the end, and the delay taken off."""
    step = jax.jit(layer.step, compiler_options=UNOPTIMIZED)
    rate = layer.stride if isinstance(layer, CentredUpsample) else layer.rate
    total, steps = sum(sizes), x.shape[1]
    padded = np.concatenate([x, np.full((ROWS, total - steps, x.shape[2]), np.nan, x.dtype)], 1)
    ends = np.full(ROWS, steps) if lengths is None else lengths
    state, start, pieces = layer.init_state(ROWS, jnp.float32), 0, []
    for size in sizes:
        stop = start + size
        end = np.where(stop >= ends, ends, 10**6)
        y, after = step(padded[:, start:stop], state, Span(jnp.full((ROWS,), start), end))
        assert jax.tree.structure(after) == jax.tree.structure(state)
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            assert a.shape[0] == ROWS
        pieces, state, start = [*pieces, np.asarray(y)], after, stop
    return np.concatenate(pieces, axis=1)[:, layer.delay : layer.delay + steps * rate]


@pytest.mark.parametrize(("kernel", "rate"), [(11, 5), (7, 3), (4, 2), (3, 3), (9, 1)])
def test_upsampling_equals_the_definition(kernel, rate):
    layer = CentredUpsample(3, 2, kernel, stride=rate, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.array([0.5, -1.0])
    x, weights = inputs(3), np.asarray(layer.kernel[...], np.float64)
    full = np.zeros((ROWS, (STEPS - 1) * rate + kernel, 2))
    for t in range(STEPS):
        for j in range(kernel):
            full[:, t * rate + j] += x[:, t] @ weights[j]
    trim = (kernel - rate) // 2
    expected = full[:, trim : trim + STEPS * rate] + np.array([0.5, -1.0])
    late = -(-layer.delay // rate)
    np.testing.assert_allclose(feed(layer, x, [STEPS + late]), expected, rtol=0, atol=1e-5)
    ones = feed(layer, x, [1] * (STEPS + late))
    np.testing.assert_allclose(ones, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_stage_streams(causal):
    stage = AMPStage(4, 3, 2, 4, (3, 5), ((1, 3, 2), (2, 1, 1)), causal=causal, rngs=nnx.Rngs(1))
    # The widest kernel's centre at every centred convolution, 5 at every activation.
    assert stage.delay == 1 + (2 + 5 + 30 if causal else 3 * (5 + 5 + 2))
    total = 36
    assert total * 2 >= STEPS * 2 + stage.delay
    x = inputs(4)
    expected = feed(stage, x, [total])
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(feed(stage, x, [3] * 12), expected, rtol=0, atol=1e-5)
    # A row that ends earlier is what it is alone.
    ragged = feed(stage, x, [total], np.array([STEPS, 6]))
    short = x[:, :6]
    alone = feed(stage, short, [total])
    np.testing.assert_allclose(ragged[1, :12], alone[1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(ragged[0], expected[0], rtol=0, atol=1e-5)


def test_stage_sees_its_delay_ahead_and_no_more():
    stage = AMPStage(2, 2, 1, 1, (3,), ((1, 1, 1),), causal=False, rngs=nnx.Rngs(2))
    assert stage.delay == 3 * (5 + 5 + 1)
    steps, at = 80, 40
    x = np.random.default_rng(3).standard_normal((1, steps, 2)).astype(np.float32)

    def sample(x):
        # The factor keeps the product of many far taps within float32.
        padded = jnp.pad(x, ((0, 0), (0, stage.delay), (0, 0)))
        state = stage.init_state(1, jnp.float32)
        y, _ = stage.step(padded, state, full_span(1, steps))
        return 1e30 * jnp.sum(y[:, stage.delay + at])

    gradient = jax.jit(jax.grad(sample), compiler_options=UNOPTIMIZED)(x)
    assert reach(gradient, axis=1)[1] == at + stage.delay
