"""Balancing of several losses by the norms of their gradients with respect to the samples."""

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
    """Initial moving averages: [decayed sum, decayed count] of each loss."""
    return {name: jnp.zeros(2) for name in names}


def balanced(
    gradients: Mapping[str, jax.Array],
    weights: Mapping[str, float],
    norms: Mapping[str, jax.Array],
    decay: float,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """As `weighted`, after scaling every gradient to norm 1 and the weights to the sum 1.

    A weight is then the share of its loss, independent of the loss's scale (EnCodec,
    arXiv:2210.13438, section 3.4). The norm is a moving average of the gradient
    norm of a single row's loss, so it does not depend on the batch size. A loss
    without a gradient (discriminators before their start) is left out, and its average does not
    change.

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
        # In a mean over B rows, each row has 1 / B of its own gradient.
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
