"""Means and ratios over clips, with confidence intervals."""

from __future__ import annotations

import math
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
        low, high: 95 % interval.
        clips: how many clips have this score.
    """

    value: float
    low: float
    high: float
    clips: int


def estimate(scores: Sequence[Score], draws: int = 2000, seed: int = 0) -> Estimate:
    """The estimate over clips, and where it would lie for other clips of the same kind.

    Clips are drawn with replacement, all scores of a clip together (bootstrap, Efron 1979). Where
    every clip is a yes or no, draws of clips that all agree would give an interval of width 0, so
    the interval is that of Wilson (1927).

    Args:
        scores: at least one, with positive denominators.
    """
    pairs = np.asarray(scores, dtype=np.float64)
    total = pairs.sum(axis=0)
    value = float(total[0] / total[1])
    if np.all(pairs[:, 1] == 1) and np.all((pairs[:, 0] == 0) | (pairs[:, 0] == 1)):
        return Estimate(value, *_wilson(value, len(pairs)), len(pairs))
    picks = np.random.default_rng(seed).integers(len(pairs), size=(draws, len(pairs)))
    sums = pairs[picks].sum(axis=1)
    low, high = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    return Estimate(value, float(low), float(high), len(pairs))


def _wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count`."""
    z = 1.959964
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    # Where all clips agree, one limit is their value, up to rounding.
    low = 0.0 if share == 0 else middle - z * half
    return low, 1.0 if share == 1 else middle + z * half
