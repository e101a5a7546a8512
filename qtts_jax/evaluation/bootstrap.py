"""Means and ratios over clips, with bootstrap confidence intervals (Efron 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A score of a clip as numerator and denominator: 3 errors in 12 words, or a plain value over 1.
Score = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """Sum of numerators over sum of denominators.

    Attributes:
        value: the estimate.
        low, high: 95 % interval, by percentiles over resampled clips.
        clips: how many clips have this score.
    """

    value: float
    low: float
    high: float
    clips: int


def estimate(scores: Sequence[Score], draws: int = 2000, seed: int = 0) -> Estimate:
    """The estimate over clips, and where it would lie for other clips of the same kind.

    Clips are drawn with replacement, all scores of a clip together.

    Args:
        scores: at least one, with positive denominators.
    """
    pairs = np.asarray(scores, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(len(pairs), size=(draws, len(pairs)))
    sums = pairs[picks].sum(axis=1)
    low, high = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    total = pairs.sum(axis=0)
    return Estimate(float(total[0] / total[1]), float(low), float(high), len(pairs))
