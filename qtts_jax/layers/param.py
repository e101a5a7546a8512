"""Parameters with logical axes, the only kind of variable a module of this package holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

Initializer = Callable[[jax.Array, tuple[int, ...]], jax.Array]


def normal(std: float) -> Initializer:
    """Draws from N(0, std^2)."""
    return lambda key, shape: std * jax.random.normal(key, shape, jnp.float32)


def fan_in(fan: int) -> Initializer:
    """Uniform draws with variance 1 / (3 fan), the usual start of convolutions."""
    bound = fan**-0.5
    return lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def constant(value: float) -> Initializer:
    """The same value everywhere."""
    return lambda key, shape: jnp.full(shape, value, jnp.float32)


def param(
    rngs: nnx.Rngs,
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
    init: Initializer,
    *,
    columns: int | None = None,
) -> nnx.Param[Any]:
    """A float32 parameter whose dimensions carry logical names.

    Args:
        rngs: source of the initialization key; without a key (None) only the shape is
            made (`functional.shapes_of`).
        shape: dimensions.
        axes: a logical name (or None) for each dimension; `qtts_jax.sharding` maps the names to
            mesh axes, so a module never mentions a mesh.
        init: (key, shape) -> float32 array.
        columns: for matrices and tables, how many of the last dimensions an output row has;
            `qtts_jax.layers.quantized_weights` may then store it in bytes.
    """
    if len(axes) != len(shape):
        raise AssertionError(f"{len(axes)} axis names for the {len(shape)} dimensions of {shape}")
    key = rngs.params()
    value = jax.ShapeDtypeStruct(shape, jnp.float32) if key is None else init(key, shape)
    return nnx.Param(value, logical_axes=axes, columns=columns)
