"""Anti-aliased Snake: the filters by definition, and streams with a delay."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qtts_jax.layers.alias_free_snake import AHEAD, FILTER, AliasFreeSnake, kaiser_sinc
from qtts_jax.layers.stream_position import Span, delay, full_span
from tests.support.contract import reach

ROWS, SIGNALS, STEPS, CHANNELS = 2, 3, 23, 4
UNOPTIMIZED = {"xla_backend_optimization_level": 0}


@pytest.fixture(scope="module")
def layer():
    made = AliasFreeSnake(SIGNALS, CHANNELS, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    for parameter in (made.alpha, made.beta):
        parameter[...] = jnp.asarray(rng.uniform(-0.5, 0.5, parameter.shape), jnp.float32)
    return made


@pytest.fixture(scope="module")
def x():
    shape = (ROWS, SIGNALS, STEPS, CHANNELS)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def step(layer):
    return jax.jit(layer.step, compiler_options=UNOPTIMIZED)


def by_definition(signal, alpha, beta):
    """One channel, in float64: zeros between, filter, Snake, filter, every second sample."""
    taps = FILTER.astype(np.float64)
    padded = np.pad(signal.astype(np.float64), 5, mode="edge")
    spread = np.zeros(2 * len(padded) - 1)
    spread[::2] = padded
    up = 2 * np.convolve(spread, taps)[15:-15]
    assert len(up) == 2 * len(signal)
    up = up + np.sin(np.exp(alpha) * up) ** 2 / np.exp(beta)
    padded = np.pad(up, (5, 6), mode="edge")
    return np.correlate(padded, taps, mode="valid")[::2]


def run(layer, step, x, lengths=None):
    """The whole signal, its delay taken off."""
    padded = np.concatenate([x, np.full_like(x[:, :, :AHEAD], 7)], axis=2)
    state = layer.init_state(x.shape[0], jnp.float32)
    y, _ = step(padded, state, full_span(x.shape[0], x.shape[2], lengths))
    return np.asarray(y)[:, :, AHEAD:]


def test_filter_is_a_symmetric_low_pass():
    np.testing.assert_allclose(FILTER, FILTER[::-1], atol=1e-8)
    assert FILTER.sum() == pytest.approx(1, abs=1e-6)
    response = np.abs(np.fft.rfft(FILTER, 512))
    assert response[:64].min() > 0.9
    assert response[230:].max() < 0.02
    assert np.isfinite(kaiser_sinc(12, 0.25, 0.1)).all()
    assert np.isfinite(kaiser_sinc(4, 0.25, 0.05)).all()


def test_equals_the_definition(layer, step, x):
    y = run(layer, step, x)
    for row in range(ROWS):
        for signal in range(SIGNALS):
            for c in range(CHANNELS):
                alpha, beta = (float(t[...][signal, c]) for t in (layer.alpha, layer.beta))
                expected = by_definition(x[row, signal, :, c], alpha, beta)
                np.testing.assert_allclose(y[row, signal, :, c], expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("sizes", [[1] * 28, [3] * 9 + [1], [2, 11, 1, 14]])
def test_stream_is_late_but_equal(layer, step, x, sizes):
    """Pieces of any size, before and after the end is known, with garbage behind it."""
    expected = run(layer, step, x)
    padded = np.concatenate([x, np.full_like(x[:, :, :AHEAD], 7)], axis=2)
    state, start, pieces = layer.init_state(ROWS, jnp.float32), 0, []
    for size in sizes:
        stop = start + size
        end = STEPS if stop >= STEPS else 10**6
        span = Span(jnp.full((ROWS,), start), jnp.full((ROWS,), end))
        y, after = step(padded[:, :, start:stop], state, span)
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
        pieces, state, start = [*pieces, np.asarray(y)], after, stop
    y = np.concatenate(pieces, axis=2)[:, :, AHEAD:]
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)


def test_rows_end_where_they_end(layer, step, x):
    lengths = np.array([STEPS, 9])
    y = run(layer, step, x, lengths)
    alone = run(layer, step, x[1:, :, :9])
    np.testing.assert_allclose(y[1, :, :9], alone[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(y[0], run(layer, step, x)[0], rtol=0, atol=1e-6)


def test_sees_five_inputs_on_either_side(layer, x):
    @functools.partial(jax.jit, compiler_options=UNOPTIMIZED)
    def gradient(x):
        def middle(x):
            padded = jnp.pad(x, ((0, 0), (0, 0), (0, AHEAD), (0, 0)))
            state = layer.init_state(ROWS, jnp.float32)
            y, _ = layer.step(padded, state, full_span(ROWS, STEPS))
            return jnp.sum(y[:, :, AHEAD + 11])

        return jax.grad(middle)(x)

    assert reach(gradient(x), axis=2) == (11 - AHEAD, 11 + AHEAD)


def test_delay_line_gives_back_its_inputs(x):
    state, pieces = jnp.zeros((ROWS, SIGNALS, 4, CHANNELS)), []
    for part in np.split(x, [2, 3, 17], axis=2):
        y, state = delay(jnp.asarray(part), state, axis=2)
        pieces.append(y)
    line = np.concatenate(pieces, axis=2)
    assert (line[:, :, :4] == 0).all()
    np.testing.assert_array_equal(line[:, :, 4:], x[:, :, :-4])
    np.testing.assert_array_equal(state, x[:, :, -4:])
