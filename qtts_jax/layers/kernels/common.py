"""Scalars and rounding, shared by the decoding kernels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

F32 = jnp.float32
Scalar = jax.Array | int | float | bool


def cell(value: Scalar, dtype: Any) -> jax.Array:
    """A scalar as the [1] array that a kernel reads."""
    return jnp.asarray(value).astype(dtype).reshape(1)


def rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """Float32 values rounded to `dtype`."""
    return x.astype(dtype).astype(F32)
