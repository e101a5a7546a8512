"""Random equalisation: a smooth random frequency response per row, as of rooms and microphones."""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Points of the gain curve, one per octave: at 24 kHz from 94 Hz to 12 kHz.
KNOTS = 8


def random_eq(audio: jax.Array, key: jax.Array, decibels: float) -> jax.Array:
    """Multiply the spectrum of each row by its own random gains, linear in dB between octaves.

    Args:
        audio: [B, N] float32.
        decibels: gains are uniform in [-decibels, decibels].

    Returns:
        [B, N] float32, without delay.
    """
    gains = jax.random.uniform(key, (audio.shape[0], KNOTS), minval=-1.0) * (decibels / 20)
    bins = jnp.arange(audio.shape[1] // 2 + 1) / (audio.shape[1] // 2)
    octaves = KNOTS - 1 + jnp.log2(jnp.maximum(bins, 2.0 ** (1 - KNOTS)))
    curve = jax.vmap(lambda gain: jnp.interp(octaves, jnp.arange(KNOTS), gain))(gains)
    spectrum = jnp.fft.rfft(audio, axis=-1) * 10.0**curve
    return jnp.fft.irfft(spectrum, audio.shape[1], axis=-1)
