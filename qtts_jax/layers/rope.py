"""Rotary position embedding (RoPE, arXiv:2104.09864): element i is paired with i + h/2."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class RopeAngles(NamedTuple):
    """cos and sin of every position, each [B, T, h/2] float32."""

    cos: jax.Array
    sin: jax.Array


@functools.lru_cache(maxsize=32)
def inverse_frequencies(head_dim: int, theta: float) -> np.ndarray:
    """Angle per position of each pair, [h/2] float32: 1 / theta^(2i/h).

    Computed on the host, in float32 and in this order, as the official code does: other orders
    differ in the last bits, which a position of some thousands multiplies. The power is the nearest
    float32, which PyTorch's nearly always is and numpy's own often is not.
    """
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    power = np.float64(theta) ** exponent.astype(np.float64)
    inverse = np.float32(1) / power.astype(np.float32)
    inverse.setflags(write=False)  # every caller gets the same array
    return inverse


def rope_angles(positions: jax.Array, head_dim: int, theta: float) -> RopeAngles:
    """cos and sin of position * `inverse_frequencies`.

    The official talker configures three interleaved position rows (multimodal RoPE), but they are
    always identical, which is this plain one-dimensional form.

    Args:
        positions: [B, T] int.
    """
    angles = positions.astype(jnp.float32)[..., None] * inverse_frequencies(
        head_dim, theta
    )  # [B, T, h/2]
    return RopeAngles(jnp.cos(angles), jnp.sin(angles))


def apply_rope(x: jax.Array, rope: RopeAngles) -> jax.Array:
    """Rotate the last axis of x [B, T, ..., h] by its position; computed in float32."""
    extra = x.ndim - rope.cos.ndim
    cos, sin = (t.reshape(t.shape[:2] + (1,) * extra + t.shape[2:]) for t in rope)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def apply_rope_by_product(x: jax.Array, rope: RopeAngles) -> jax.Array:
    """`apply_rope` of 16-bit x, with the same results, without slices of half a head.

    A product with a matrix of 0, 1 and -1 gives (-b, a) of x = (a, b), exactly.
    """
    half = x.shape[-1] // 2
    swap = np.zeros((2 * half, 2 * half), np.float32)
    swap[half:, :half], swap[:half, half:] = -np.eye(half), np.eye(half)
    swapped = jnp.einsum(
        "...h,hj->...j", x, swap.astype(x.dtype), preferred_element_type=jnp.float32
    )  # [B, T, ..., h]
    extra = x.ndim - rope.cos.ndim
    cos, sin = (
        jnp.concatenate([t, t], axis=-1).reshape(t.shape[:2] + (1,) * extra + (2 * half,))
        for t in rope
    )
    return (x.astype(jnp.float32) * cos + swapped * sin).astype(x.dtype)
