"""Snake, the periodic activation of the waveform decoders."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qtts_jax.layers.param import constant, param

# pi in three parts; the first two have so few bits that their product with a number of half
# periods is exact, which keeps the reduced angle accurate (Cody and Waite's method).
PI_PARTS = (3.140625, 0.0009670257568359375, 6.277114152908325e-07)

# sin(r) / r in powers of r^2, fitted by least squares on |r| <= pi/2 (error below 3e-8).
SIN_COEFFICIENTS = (
    1.0,
    -0.1666666660385798,
    0.0083333304197542,
    -0.00019840796430552833,
    2.7522300660453837e-06,
    -2.3841941389651974e-08,
)


def sin_squared(x: jax.Array) -> jax.Array:
    """sin(x)^2 of float32 x, to 3e-7 for |x| up to 1e4.

    The square has period pi and no sign, so one reduction and one polynomial do, without a branch.
    The general sine is 20 times slower on a CPU, where it would take a third of the decoder's time.
    """
    half_turns = jnp.round(x * np.float32(1 / math.pi))
    for part in PI_PARTS:
        x = x - half_turns * np.float32(part)
    z = x * x
    ratio = jnp.full_like(z, SIN_COEFFICIENTS[-1])
    for coefficient in SIN_COEFFICIENTS[-2::-1]:
        ratio = ratio * z + np.float32(coefficient)
    return z * ratio * ratio


def snake_beta(x: jax.Array, alpha: jax.Array, beta: jax.Array) -> jax.Array:
    """x + sin(a x)^2 / (b + 1e-9) with a = exp(alpha), b = exp(beta) broadcast to x.

    Computed in float32, returned in the dtype of x.
    """
    frequency = jnp.exp(alpha.astype(jnp.float32))
    gain = 1 / (jnp.exp(beta.astype(jnp.float32)) + 1e-9)
    wide = x.astype(jnp.float32)
    return (wide + gain * sin_squared(frequency * wide)).astype(x.dtype)


class SnakeBeta(nnx.Module):
    """`snake_beta` with a frequency and a magnitude per channel.

    Snake (arXiv:2006.08195) with separate frequency and magnitude, both stored as logarithms
    (BigVGAN's form, upstream `SnakeBeta`).
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs) -> None:
        self.alpha = param(rngs, (channels,), ("conv_out",), constant(0.0))
        self.beta = param(rngs, (channels,), ("conv_out",), constant(0.0))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., C] -> [..., C]."""
        return snake_beta(x, self.alpha[...], self.beta[...])
