"""Losses over rows of unequal length; every one is a float32 scalar.

A batch says for every row how many targets a row of it has on average, so that the mean over
microbatches of a batch is that of the whole batch (`Task.gradients`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def mean_over_real(values: jax.Array, real: jax.Array, per_row: jax.Array) -> jax.Array:
    """Sum of the real values over the targets of as many rows of the whole batch.

    Args:
        values: [B, T] float32; anything finite where not real.
        real: [B, T] bool.
        per_row: [B] float32, mean real targets of a row of the whole batch, equal in all rows.
    """
    targets = jnp.maximum(jnp.sum(per_row), 1e-6)
    return jnp.sum(jnp.where(real, values, 0)) / targets


def token_losses(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross entropy of every target.

    Args:
        logits: [B, L, V].
        targets: [B, L] int in 0 ... V - 1.

    Returns:
        float32 [B, L].
    """
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def squared_errors(predicted: jax.Array, wanted: jax.Array) -> jax.Array:
    """Mean squared error of every vector: [..., T, D] and [..., T, D] -> float32 [..., T].

    No gradient goes to `wanted`.
    """
    away = predicted.astype(jnp.float32) - jax.lax.stop_gradient(wanted.astype(jnp.float32))
    return jnp.mean(jnp.square(away), axis=-1)


def absolute_errors(predicted: jax.Array, wanted: jax.Array) -> jax.Array:
    """Mean absolute error of every vector: [..., T, D] and [..., T, D] -> float32 [..., T].

    No gradient goes to `wanted`.
    """
    away = predicted.astype(jnp.float32) - jax.lax.stop_gradient(wanted.astype(jnp.float32))
    return jnp.mean(jnp.abs(away), axis=-1)
