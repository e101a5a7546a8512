"""Objectives of preference and policy optimization as functions of log-probabilities."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Clip(NamedTuple):
    """Bounds of a probability ratio: 1 - low to 1 + high."""

    low: float
    high: float


def gspo(
    log_ratio: jax.Array, present: jax.Array, advantage: jax.Array, clip: Clip
) -> tuple[jax.Array, jax.Array]:
    """GSPO: the clipped gain of each sequence by its length-normalised ratio.

    Zheng et al. 2025 (arXiv:2507.18071), equations 5 to 7.

    Args:
        log_ratio: [B, N], log-probability of each code minus that of the model that drew it.
        present: [B, N] bool, where there is a code.
        advantage: [B].

    Returns:
        the gain [B], to be maximised, and the share [B] of codes whose gradient is clipped off.
    """
    ratio = jnp.exp(_mean(log_ratio, present))  # [B]
    gain, clipped = _clipped(ratio, advantage, clip)
    return gain, clipped


def grpo(
    log_ratio: jax.Array, present: jax.Array, advantage: jax.Array, clip: Clip
) -> tuple[jax.Array, jax.Array]:
    """GRPO: the mean clipped gain over the codes of each sequence, each by its own ratio.

    Shao et al. 2024 (arXiv:2402.03300), equation 3. Arguments and results as `gspo`.
    """
    gain, clipped = _clipped(jnp.exp(log_ratio), advantage[:, None], clip)
    return _mean(gain, present), _mean(clipped, present)


def kl_to_reference(log_probs: jax.Array, reference: jax.Array, present: jax.Array) -> jax.Array:
    """Estimate of KL(policy || reference) for a code, the mean over each sequence.

    exp(d) - d - 1 with d = reference - log_probs: not biased for codes of the policy, never
    negative, and with little variance (estimator k3 of Schulman, 2020).

    Args:
        log_probs, reference: [B, N].
        present: [B, N] bool.

    Returns:
        [B], nats a code.
    """
    d = jnp.where(present, reference - log_probs, 0)
    return _mean(jnp.exp(d) - d - 1, present)


def dpo(margin: jax.Array, beta: float) -> jax.Array:
    """DPO: negative log-probability that the chosen speech is preferred.

    Rafailov et al. 2023 (arXiv:2305.18290), equation 7.

    Args:
        margin: [B], log-probability ratio to the reference of the chosen speech, minus that of the
            rejected one.
        beta: strength of the reference; the smaller, the farther the policy moves.

    Returns:
        [B].
    """
    return -jax.nn.log_sigmoid(beta * margin)


def _clipped(ratio: jax.Array, advantage: jax.Array, clip: Clip) -> tuple[jax.Array, jax.Array]:
    free = ratio * advantage
    bounded = jnp.clip(ratio, 1 - clip.low, 1 + clip.high) * advantage
    return jnp.minimum(free, bounded), (bounded < free).astype(jnp.float32)


def _mean(x: jax.Array, present: jax.Array) -> jax.Array:
    """Mean over the codes of each sequence: [B, N] -> [B]."""
    return jnp.sum(jnp.where(present, x, 0), axis=1) / jnp.maximum(jnp.sum(present, axis=1), 1)
