"""Rotary positions in the half-split layout (first half with second half)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Rotation(NamedTuple):
    """cos and sin of every position, each [B, T, h/2] float32."""

    cos: jax.Array
    sin: jax.Array


def rotation(positions: jax.Array, head_dim: int, theta: float) -> Rotation:
    """Angles position / theta^(2i/h).

    The official talker configures three interleaved position rows (multimodal RoPE), but they are
    always identical, which is this plain one-dimensional form.

    Args:
        positions: [B, T] int.
    """
    inverse = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions.astype(jnp.float32)[..., None] * inverse
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(x: jax.Array, r: Rotation) -> jax.Array:
    """Rotate the last axis of x [B, T, ..., h] by its position; computed in float32."""
    extra = x.ndim - r.cos.ndim
    cos, sin = (t.reshape(t.shape[:2] + (1,) * extra + t.shape[2:]) for t in r)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
