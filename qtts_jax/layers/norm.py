"""Normalization layers; statistics are always float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qtts_jax.layers.param import constant, param


def rms_norm(x: jax.Array, scale: jax.Array | None, eps: float) -> jax.Array:
    """x / sqrt(mean(x^2) + eps) * scale over the last axis; x itself where there is no scale.

    The normalized value is cast back to the input dtype before the scale multiplies it.
    """
    if scale is None:
        return x
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + eps)
    return scale * y.astype(x.dtype)


def rms_norm_by_product(x: jax.Array, scale: jax.Array | None, eps: float) -> jax.Array:
    """`rms_norm` whose sum of squares is a product with ones, for a narrow last axis.

    The squares of bfloat16 numbers have 16 bits, which two of the three products of bfloat16
    numbers that `HIGH` is on TPUs hold exactly.
    """
    if scale is None:
        return x
    y = x.astype(jnp.float32)
    ones = np.ones((x.shape[-1], x.shape[-1]), np.float32)  # every element gets the sum
    total = jnp.einsum("...h,hj->...j", y * y, ones, precision=jax.lax.Precision.HIGH)
    y = y * jax.lax.rsqrt(total / x.shape[-1] + eps)
    return scale * y.astype(x.dtype)


class RMSNorm(nnx.Module):
    """`rms_norm` with its scale (upstream `Qwen3TTSRMSNorm`)."""

    def __init__(self, width: int, eps: float, *, axis: str = "embed", rngs: nnx.Rngs) -> None:
        self.eps = eps
        self.scale = param(rngs, (width,), (axis,), constant(1.0))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., D] -> [..., D]."""
        return rms_norm(x, self.scale[...], self.eps)


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(var + eps) * scale + bias over the last axis."""

    def __init__(self, width: int, eps: float, *, rngs: nnx.Rngs) -> None:
        self.eps = eps
        self.scale = param(rngs, (width,), ("embed",), constant(1.0))
        self.bias = param(rngs, (width,), ("embed",), constant(0.0))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., D] -> [..., D]."""
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return (self.scale[...] * y + self.bias[...]).astype(x.dtype)
