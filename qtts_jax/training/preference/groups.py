"""Rewards within groups of speech for one prompt: advantages, and the best and worst of a group."""

from __future__ import annotations

import numpy as np

# Rewards that differ by no more are equal: rounding of scores is no signal.
FLAT = 1e-6


def group_advantages(rewards: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Rewards minus the mean of their group, and which rows belong to a group with differences.

    They are not divided by the deviation of the group, which would turn the smallest differences
    into the largest gradients (Dr. GRPO, arXiv:2503.20783, section 3).

    Args:
        rewards: [N], `samples` of each group in a row.

    Returns:
        float32 [N] and bool [N].
    """
    groups = rewards.reshape(-1, samples).astype(np.float64)
    advantage = groups - groups.mean(axis=1, keepdims=True)
    differs = np.ptp(groups, axis=1) > FLAT
    advantage[~differs] = 0
    return advantage.ravel().astype(np.float32), np.repeat(differs, samples)


def best_and_worst(
    rewards: np.ndarray, samples: int, margin: float, pairs: int = 1
) -> list[tuple[int, int]]:
    """The places of the best and the worst of each group, of the second best and worst, and so on.

    Args:
        rewards: [N], `samples` of each group in a row.
        margin: pairs that differ by less are left out.
        pairs: most of a group.
    """
    found = []
    for group, values in enumerate(rewards.reshape(-1, samples)):
        order = group * samples + np.argsort(-values, kind="stable")
        for best, worst in zip(order, order[::-1][: min(pairs, samples // 2)], strict=False):
            if rewards[best] - rewards[worst] > max(margin, FLAT):
                found.append((int(best), int(worst)))
    return found
