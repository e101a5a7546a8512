"""Weights of several losses as shares of the gradient that reaches the samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp


def weighted(gradients: Mapping[str, jax.Array], weights: Mapping[str, float]) -> jax.Array:
    """The gradient of the weighted sum of losses.

    Args:
        gradients: of each loss with respect to the samples, [B, N].
        weights: by the same names.
    """
    return sum((weights[name] * g for name, g in gradients.items()), start=jnp.zeros(()))


def first_norms(names: Iterable[str]) -> dict[str, jax.Array]:
    """Moving averages before the first step: [decayed sum, decayed count] of each loss."""
    return {name: jnp.zeros(2) for name in names}


def balanced(
    gradients: Mapping[str, jax.Array],
    weights: Mapping[str, float],
    norms: Mapping[str, jax.Array],
    decay: float,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """As `weighted`, with every gradient brought to norm 1 and the weights to the sum 1 before.

    A weight is then the share of a loss, whatever its scale (EnCodec, arXiv:2210.13438, section
    3.4). The norm is a moving average over steps of that of one row's own loss, so it does not
    depend on the size of the batch. A loss without a gradient (discriminators before their start)
    takes no part, and its average waits.

    Args:
        gradients: of each loss, a mean over rows, with respect to the samples, [B, N].
        weights: by the same names.
        norms: moving averages before this step (`first_norms`).
        decay: of the averages.

    Returns:
        [B, N] and the averages after this step.
    """
    after, present = {}, {}
    for name, gradient in gradients.items():
        # A mean over B rows gives each the B-th part of its own gradient.
        rows = gradient.shape[0]
        norm = jnp.sqrt(rows * jnp.sum(jnp.square(gradient)))
        present[name] = norm > 0
        new = decay * norms[name] + (1 - decay) * jnp.stack([norm, jnp.ones(())])
        after[name] = jnp.where(present[name], new, norms[name])
    total = sum((weights[name] * present[name] for name in gradients), start=jnp.zeros(()))
    out = jnp.zeros(())
    for name, gradient in gradients.items():
        mean = after[name][0] / jnp.maximum(after[name][1], 1e-12)
        share = weights[name] / jnp.maximum(total, 1e-12)
        out += jnp.where(present[name], share / jnp.maximum(mean, 1e-12), 0) * gradient
    return out, after
