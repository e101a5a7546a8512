"""Snake activation at twice the sampling rate, between an upsampling and a downsampling filter.

The activation makes harmonics above half the sampling rate, which would alias; at twice the rate
they do not, and the second filter removes them (BigVGAN, arXiv:2206.04658, section 3.3; upstream
`TorchActivation1d`).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qtts_jax.layers.param import constant, param
from qtts_jax.layers.snake import snake_beta
from qtts_jax.layers.stream_position import Span

# Fixed in the upstream class: both filters have 12 taps and a factor of 2.
TAPS, FACTOR = 12, 2
# Inputs on either side that an output depends on, through both filters.
AHEAD = 5
MEMORY = 2 * AHEAD


def kaiser_sinc(taps: int, cutoff: float, half_width: float) -> np.ndarray:
    """A low-pass filter: a sinc under a Kaiser window, with unit sum.

    Kaiser's formulas give the window's shape from the transition band (upstream
    `kaiser_sinc_filter1d`).

    Args:
        taps: even number of taps.
        cutoff, half_width: of the transition band, in cycles per sample.

    Returns:
        [taps] float32.
    """
    attenuation = 2.285 * (taps // 2 - 1) * math.pi * 4 * half_width + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation >= 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    time = np.arange(-(taps // 2), taps // 2) + 0.5
    response = 2 * cutoff * np.kaiser(taps, beta) * np.sinc(2 * cutoff * time)
    unit: np.ndarray = response / response.sum()
    return unit.astype(np.float32)


FILTER = kaiser_sinc(TAPS, 0.5 / FACTOR, 0.6 / FACTOR)
# The even and the odd sample at twice the rate that come from the inputs i ... i + 5, by input;
# and the weights by which six even and six odd samples make an output.
UP = FACTOR * np.stack([FILTER[10 - 2 * i : 12 - 2 * i] for i in range(TAPS // 2)])
DOWN = FILTER.reshape(-1, FACTOR)


class AliasFreeSnake(nnx.Module):
    """SnakeBeta at twice the rate for P signals side by side, `AHEAD` samples late in a stream.

    The signal at twice the rate is kept as pairs, so nothing is interleaved: a pair is a sum over
    six inputs, and an output is a sum over six pairs. At either rate the edge sample is repeated
    outside the signal. Computed in float32.
    """

    def __init__(self, signals: int, channels: int, *, rngs: nnx.Rngs) -> None:
        shape, axes = (signals, channels), (None, "conv_out")
        self.alpha = param(rngs, shape, axes, constant(0.0))
        self.beta = param(rngs, shape, axes, constant(0.0))

    def init_state(self, batch: int, dtype: jnp.dtype) -> jax.Array:
        """The newest inputs [B, P, MEMORY, C], before the first."""
        signals, channels = self.alpha.shape
        return jnp.zeros((batch, signals, MEMORY, channels), dtype)

    def step(self, x: jax.Array, state: jax.Array, span: Span) -> tuple[jax.Array, jax.Array]:
        """x [B, P, T, C] at `span` -> (y [B, P, T, C] at `span.delayed(AHEAD)`, state)."""
        dtype = x.dtype
        x = jnp.concatenate([state, x], axis=2)  # [B, P, MEMORY + T, C]
        state, span = x[:, :, x.shape[2] - MEMORY :], span.delayed(MEMORY)
        x = _held(x.astype(jnp.float32), span)
        time = x.shape[2] - AHEAD
        pairs = jnp.zeros((), jnp.float32)
        for i, weights in enumerate(UP):
            pairs += x[:, :, i : i + time, None] * weights[:, None]  # [B, P, AHEAD + T, 2, C]
        alpha, beta = (t[...][:, None, None] for t in (self.alpha, self.beta))
        # Pair i holds sample 2 (first + 2 + i) + 1 and the one after it, with `first` the position
        # of the first input here.
        pairs = _held_pairs(snake_beta(pairs, alpha, beta), span.delayed(-2))
        time -= AHEAD
        y = jnp.zeros((), jnp.float32)
        for i, weights in enumerate(DOWN):
            for member, weight in enumerate(weights):
                y += pairs[:, :, i : i + time, member] * weight  # [B, P, T, C]
        return y.astype(dtype), state


def _held(x: jax.Array, span: Span) -> jax.Array:
    """x [B, P, T, C] with the first and the last sample repeated outside of the signal.

    Where neither is here, no output inside of the signal depends on the values outside.
    """
    index, end = _column(span.indices(x.shape[2]), 4), span.end[:, None, None, None]
    first, last = _pick(x, -span.position), _pick(x, span.end - 1 - span.position)
    return jnp.where(index < 0, first, jnp.where(index >= end, last, x))


def _held_pairs(pairs: jax.Array, span: Span) -> jax.Array:
    """As `_held` for pairs [B, P, T, 2, C] of the samples 2 i + 1 and 2 i + 2, i from `span`."""
    lowest = _pick(pairs, -1 - span.position)[..., 1:, :]
    highest = _pick(pairs, span.end - 1 - span.position)[..., :1, :]
    index = _column(span.indices(pairs.shape[2]), 5) + np.arange(2)[:, None]
    end = span.end[:, None, None, None, None]
    return jnp.where(index < 0, lowest, jnp.where(index >= end, highest, pairs))


def _column(index: jax.Array, ndim: int) -> jax.Array:
    """[B, T] as [B, 1, T, 1, ...] of `ndim` axes."""
    return index.reshape(index.shape[0], 1, -1, *(1,) * (ndim - 3))


def _pick(x: jax.Array, index: jax.Array) -> jax.Array:
    """The sample of x [B, P, T, ...] at each row's index [B], clipped to what is there."""
    index = jnp.clip(index, 0, x.shape[2] - 1)
    return jnp.take_along_axis(x, index.reshape(-1, *(1,) * (x.ndim - 1)), axis=2)
