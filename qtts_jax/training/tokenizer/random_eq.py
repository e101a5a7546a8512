"""Recordings through other rooms and microphones, as far as a smooth filter is one."""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Of the curve of gains: an octave apart at 24 kHz, from 94 Hz to the upper end.
KNOTS = 8


def equalize(audio: jax.Array, key: jax.Array, decibels: float) -> jax.Array:
    """Each row under its own random gains, straight lines between octaves; no delay.

    Args:
        audio: [B, N] float32.
        decibels: the gain of every octave is uniform within plus and minus this.

    Returns:
        [B, N] float32.
    """
    gains = jax.random.uniform(key, (audio.shape[0], KNOTS), minval=-1.0) * (decibels / 20)
    bins = jnp.arange(audio.shape[1] // 2 + 1) / (audio.shape[1] // 2)
    octaves = KNOTS - 1 + jnp.log2(jnp.maximum(bins, 2.0 ** (1 - KNOTS)))
    curve = jax.vmap(lambda gain: jnp.interp(octaves, jnp.arange(KNOTS), gain))(gains)
    spectrum = jnp.fft.rfft(audio, axis=-1) * 10.0**curve
    return jnp.fft.irfft(spectrum, audio.shape[1], axis=-1)
