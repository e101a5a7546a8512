"""Library of the ablations: one picture of an ablation, a panel a measure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import command
from experiments.runner.ablation import Ablation
from experiments.runner.intervals import estimate
from experiments.runner.results import Result
from experiments.runner.table import scores_of, shown
from qtts_jax.extras import import_extra

COLUMNS = 3


def draw(ablation: Ablation, found: Sequence[Result]) -> Any:
    """A matplotlib figure: each variation with its interval, and the value of each seed."""
    figures = import_extra("matplotlib.figure", "train", "the picture")
    measures = [m for m in shown(found) if m.name != "rtf"]
    names = [n for n in ablation.variations if any(r["variation"] == n for r in found)]
    lines = -(-len(measures) // COLUMNS)
    height = (1.0 + 0.35 * len(names)) * lines + 0.5
    figure = figures.Figure(figsize=(3.7 * COLUMNS, height), layout="constrained")
    figure.suptitle(ablation.question, fontsize=10)
    panels = figure.subplots(lines, COLUMNS, squeeze=False, sharey=True).ravel()
    for panel, measure in zip(panels, measures, strict=False):
        for y, name in enumerate(names):
            runs = [r for r in found if r["variation"] == name]
            whole = estimate(scores_of(runs, measure))
            if whole is None:
                continue
            value, low, high = (measure.scale * x for x in (whole.value, whole.low, whole.high))
            panel.errorbar(
                [value], [y], xerr=[[value - low], [high - value]], fmt="o", capsize=3, color="C0"
            )
            each = [estimate([scores]) for scores in scores_of(runs, measure)]
            seeds = [measure.scale * e.value for e in each if e is not None]
            panel.plot(seeds, [y + 0.2] * len(seeds), "|", color="grey")
        panel.set_xlabel(f"{measure.label} ({measure.better} is better)", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.set_yticks(range(len(names)), names, fontsize=8)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.grid(axis="x", alpha=0.3)
    for panel in panels[len(measures) :]:
        panel.set_visible(False)
    return figure


def save(ablation: Ablation, found: Sequence[Result], path: Path) -> None:
    """Draw and write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(ablation, found).savefig(path, dpi=110)


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
