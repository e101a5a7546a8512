"""Rows of a report: what one system got on all clips."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from qtts_jax.errors import EvaluationError
from qtts_jax.evaluation.bootstrap import Estimate, Score, estimate
from qtts_jax.evaluation.metrics import METRICS
from qtts_jax.evaluation.panel import Panel
from qtts_jax.evaluation.sample import Sample


@dataclass
class Row:
    """Scores of a system.

    Attributes:
        name: of the system.
        clips: of each clip its scores.
        details: what is said of all clips at once (codebook use).
    """

    name: str
    clips: dict[str, dict[str, Score]]
    details: dict[str, Any] = field(default_factory=dict)

    def estimates(self) -> dict[str, Estimate]:
        """Each score over the clips that have it."""
        found = {}
        for metric in METRICS:
            scores = [s[metric.name] for s in self.clips.values() if metric.name in s]
            if sum(denominator for _, denominator in scores) > 0:
                found[metric.name] = estimate(scores)
        return found


def score_row(
    name: str, samples: Iterable[Sample], panel: Panel, total: int, **details: Any
) -> Row:
    """Score the samples of a system by the panel, with a progress bar.

    Raises:
        EvaluationError: there are no samples.
    """
    clips = {s.clip: panel.scores(s) for s in tqdm(samples, desc=name, total=total, unit="clip")}
    if not clips:
        raise EvaluationError(f"there is no clip to judge for {name}; choose others.")
    return Row(name, clips, details)


def add_rise(row: Row, original: Row) -> None:
    """Add `wer_rise`: word errors beyond those of the original, clip by clip."""
    for clip, scores in row.clips.items():
        before = original.clips.get(clip, {}).get("wer")
        if before is not None and "wer" in scores:
            errors, words = scores["wer"]
            scores["wer_rise"] = (errors - before[0], words)
