"""Library of the ablations: estimates over seeds and clips, and differences between variations.

Two things vary that a repetition would draw anew: the seed of training and the clips of the test.
Both are drawn with replacement, seeds first and then clips (bootstrap, Efron 1979), 2000 times; the
interval holds the middle 95 %. With one seed it is over clips alone and says nothing of training.
Where all clips agree on a yes or no, the interval is that of Wilson (1927), as in
`evaluation.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments import command
from qtts_jax.evaluation import bootstrap
from qtts_jax.evaluation.bootstrap import Estimate

DRAWS = 2000
Scores = Sequence[dict[str, Sequence[float]]]
"""One mapping a seed: numerator and denominator by clip."""


@dataclass(frozen=True)
class _Table:
    """Numerators and denominators [seeds, clips, 2] of the clips that every seed has."""

    pairs: np.ndarray

    def value(self) -> float:
        total = self.pairs.sum(axis=(0, 1))
        return float(total[0] / total[1])

    def drawn(self, seeds: np.ndarray, clips: np.ndarray) -> np.ndarray:
        """[draws] of the estimate for drawn seeds [draws, S] and clips [draws, C]."""
        total = self.pairs[seeds[:, :, None], clips[:, None, :]].sum(axis=(1, 2))
        return total[:, 0] / total[:, 1]


def estimate(scores: Scores) -> Estimate | None:
    """The ratio of sums over all seeds and clips; None without scores."""
    table = _table([scores])
    if table is None:
        return None
    pairs = table[0].pairs
    numerators, denominators = pairs[..., 0], pairs[..., 1]
    equal = np.all(denominators == denominators[0, 0])
    if equal and (np.all(numerators == 0) or np.all(numerators == denominators)):
        # All agree, so every draw would too: the interval of a share of the clips.
        return bootstrap.estimate([(x / denominators[0, 0], 1.0) for x in numerators[0]])
    seeds, clips = _draws(*pairs.shape[:2])
    low, high = np.percentile(table[0].drawn(seeds, clips), [2.5, 97.5])
    count = table[0].pairs.shape[1]
    return Estimate(table[0].value(), float(low), float(high), count)


def difference(scores: Scores, base: Scores) -> Estimate | None:
    """The estimate less that of `base`, whose seeds and clips are drawn together with it.

    None unless both have the same number of seeds and clips in common.
    """
    tables = _table([scores, base])
    if tables is None or tables[0].pairs.shape != tables[1].pairs.shape:
        return None
    seeds, clips = _draws(*tables[0].pairs.shape[:2])
    low, high = np.percentile(
        tables[0].drawn(seeds, clips) - tables[1].drawn(seeds, clips), [2.5, 97.5]
    )
    value = tables[0].value() - tables[1].value()
    return Estimate(value, float(low), float(high), tables[0].pairs.shape[1])


def _table(several: Sequence[Scores]) -> list[_Table] | None:
    """Tables over the clips that all have."""
    seeds = [clips for scores in several for clips in scores]
    if not all(several) or not seeds:
        return None
    names = [name for name in seeds[0] if all(name in clips for clips in seeds)]
    if not names:
        return None
    return [
        _Table(np.array([[clips[name] for name in names] for clips in scores], float))
        for scores in several
    ]


def _draws(seeds: int, clips: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(seeds, size=(DRAWS, seeds)), rng.integers(clips, size=(DRAWS, clips))


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
