"""ELU, the activation of the SEANet encoder."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from qtts_jax.layers import dispatch


def elu(x: jax.Array) -> jax.Array:
    """x where it is positive, exp(x) - 1 elsewhere."""
    return elu_by_tanh(x) if dispatch.elu_by_tanh(x.dtype) else jax.nn.elu(x)


def elu_by_tanh(x: jax.Array) -> jax.Array:
    """ELU of float32 x from t = tanh(x / 2), to 4e-7 of its value: exp(x) - 1 = 2 t / (1 - t).

    XLA:CPU computes exp(x) - 1 both by an exponential and by this tangent, to keep the one that is
    accurate for x.
    """
    # Of a large x the branch that is not taken would be infinite, and its gradient NaN.
    t = jnp.tanh(0.5 * jnp.where(x > 0, 0, x))
    return jnp.where(x > 0, x, 2 * t / (1 - t))
