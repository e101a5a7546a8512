"""Time steps and noise of the flow, which do not depend on its parameters."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.errors import RequestError
from qtts_jax.modules.dit import time_features

# Of the official code.
SWAY = -1.0


class Schedule(NamedTuple):
    """The time steps of a solution, with a leading axis of N slopes.

    Attributes:
        features: [N, 256] float32, time features of every slope.
        sizes: [N] float32, time from each slope to the next.
    """

    features: np.ndarray | jax.Array
    sizes: np.ndarray | jax.Array

    @property
    def slopes(self) -> int:
        """Network evaluations N."""
        return self.sizes.shape[0]


def schedule(steps: int, sway: float = SWAY) -> Schedule:
    """Euler's method on `steps` points from 0 to 1, so steps - 1 slopes.

    Sway sampling (F5-TTS, arXiv:2410.06885, section 3.3) moves the points: with a negative
    coefficient there are more of them near the noise. float32 as in the official code.

    Raises:
        RequestError: fewer than two points.
    """
    if steps < 2:
        raise RequestError(f"steps is {steps}: give at least 2, which is one network evaluation.")
    # Each half counts from its own end, which rounds as the official code does.
    up = np.arange(steps, dtype=np.float32) * (np.float32(1) / np.float32(steps - 1))
    times = np.where(np.arange(steps) < steps // 2, up, np.float32(1) - up[::-1])
    bend = np.cos(np.float32(np.pi / 2) * times) - np.float32(1) + times
    times = times + np.float32(sway) * bend
    return Schedule(time_features(times[:-1]), np.diff(times))


def frame_noise(keys: jax.Array, position: jax.Array, frames: int, n_mels: int) -> jax.Array:
    """Standard normal noise [B, T, M] float32, a function of key and position in any chunking.

    Args:
        keys: [B] random keys, one a row, so that a row does not depend on the batch around it.
        position: [B] int, the first of the `frames` mel frames.
    """

    def row(key: jax.Array, first: jax.Array) -> jax.Array:
        frame_keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(first + jnp.arange(frames))
        return jax.vmap(lambda k: jax.random.normal(k, (n_mels,), jnp.float32))(frame_keys)

    return jax.vmap(row)(keys, position)
