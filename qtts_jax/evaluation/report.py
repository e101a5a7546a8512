"""A report: JSON for programs, Markdown and a plot for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qtts_jax.errors import QTTSError
from qtts_jax.evaluation.bootstrap import Estimate
from qtts_jax.evaluation.judges.package import load
from qtts_jax.evaluation.metrics import BY_NAME, METRICS, Metric
from qtts_jax.evaluation.rows import Row
from qtts_jax.io.atomic_files import write_whole

_ARROW = {"higher": " ↑", "lower": " ↓", "": ""}


@dataclass(frozen=True)
class Report:
    """Scores of one task.

    Attributes:
        task: its name.
        rows: of the systems; in order.
        about: what was scored, how and where (model, clips, judges with versions, machine).
        notes: sentences for readers.
    """

    task: str
    rows: Sequence[Row]
    about: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def data(self) -> dict[str, Any]:
        """Everything but the scores of single clips."""
        return {
            "task": self.task,
            "about": self.about,
            "notes": list(self.notes),
            "rows": [
                {
                    "name": row.name,
                    "clips": len(row.clips),
                    "scores": {name: asdict(e) for name, e in row.estimates().items()},
                    "details": row.details,
                }
                for row in self.rows
            ],
        }

    def markdown(self) -> str:
        """A table with a line for each score and a column for each row."""
        found = [row.estimates() for row in self.rows]
        lines = [f"# {self.task}", ""]
        lines += [f"- {name}: {_shown(value)}" for name, value in self.about.items()]
        lines += ["", "| | " + " | ".join(f"{r.name} ({len(r.clips)})" for r in self.rows) + " |"]
        lines.append("|---|" + "--:|" * len(self.rows))
        for metric in METRICS:
            if any(metric.name in e for e in found):
                cells = [_cell(metric, e.get(metric.name)) for e in found]
                lines.append(f"| {metric.label}{_ARROW[metric.better]} | {' | '.join(cells)} |")
        lines += ["", "In parentheses: clips; in brackets: 95 % interval over clips."]
        for row in self.rows:
            details = "; ".join(f"{name} {_shown(v)}" for name, v in row.details.items())
            lines += ["", f"{row.name}: {details}"] if details else []
        lines += ["", *self.notes] if self.notes else []
        return "\n".join(lines) + "\n"

    def write(self, directory: Path, plot: bool = True) -> list[Path]:
        """Write TASK.json, TASK.md, TASK.clips.jsonl and, with a plot, TASK.png.

        Returns:
            what was written.

        Raises:
            QTTSError: the directory cannot be written, or matplotlib is not installed.
        """
        paths = [directory / f"{self.task}.{kind}" for kind in ("json", "md", "clips.jsonl")]
        write_whole(
            paths[0], (json.dumps(self.data(), indent=1, ensure_ascii=False) + "\n").encode()
        )
        write_whole(paths[1], self.markdown().encode())
        lines = [
            json.dumps({"row": row.name, "clip": clip, "scores": scores}, ensure_ascii=False)
            for row in self.rows
            for clip, scores in row.clips.items()
        ]
        write_whole(paths[2], ("\n".join(lines) + "\n").encode())
        if plot and any(row.estimates() for row in self.rows):
            paths.append(directory / f"{self.task}.png")
            self._plot(paths[-1])
        return paths

    def _plot(self, path: Path) -> None:
        """One small chart a score: a point with its interval for each row."""
        load("matplotlib", "matplotlib", "the plot")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        found = [row.estimates() for row in self.rows]
        metrics = [m for m in METRICS if any(m.name in e for e in found)]
        columns = min(4, len(metrics))
        height = -(-len(metrics) // columns)
        size = (3.4 * columns, (0.9 + 0.3 * len(self.rows)) * height + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        charts = figure.subplots(height, columns, squeeze=False, sharey=True).ravel()
        for chart, metric in zip(charts, metrics, strict=False):
            for y, estimates in enumerate(found):
                if metric.name in estimates:
                    e = estimates[metric.name]
                    value, low, high = (metric.scale * v for v in (e.value, e.low, e.high))
                    bars = [[max(value - low, 0)], [max(high - value, 0)]]
                    chart.errorbar([value], [y], xerr=bars, fmt="o", capsize=3)
            chart.set_title(metric.label + _ARROW[metric.better], fontsize=9)
            chart.set_yticks(range(len(self.rows)), [row.name for row in self.rows], fontsize=8)
            chart.set_ylim(len(self.rows) - 0.5, -0.5)
            chart.grid(axis="x", alpha=0.3)
        for chart in charts[len(metrics) :]:
            chart.set_visible(False)
        try:
            figure.savefig(path, dpi=120)
        except OSError as error:
            raise QTTSError(f"cannot write {path}: {error}.") from error


def score(row: Row, name: str) -> Estimate | None:
    """One estimate of a row in the unit that reports show, None if it has none."""
    found = row.estimates().get(name)
    if found is None:
        return None
    scale = BY_NAME[name].scale
    return Estimate(scale * found.value, scale * found.low, scale * found.high, found.clips)


def _cell(metric: Metric, found: Estimate | None) -> str:
    if found is None:
        return ""
    value, low, high = (
        f"{metric.scale * v:.{metric.digits}f}" for v in (found.value, found.low, found.high)
    )
    return f"{value} [{low}, {high}]"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(v)}" for name, v in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
