"""Plot the logged scalars of training runs: one panel a scalar, one colour a run.

    python -m experiments.train.curves runs/tokenizer runs/talker --out curves.png

Expected: a PNG with losses, held-out values, perplexities and so on, each value faint behind a
running mean over a fiftieth of the run, and one line with the numbers of panels and runs.
A RUN is a directory with metrics.jsonl (`qtts_jax/training/log.py`); `--only WORD ...` keeps the
scalars whose names have one of the words. matplotlib is in the extra `train`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments import command
from qtts_jax.errors import TrainingError
from qtts_jax.extras import import_extra
from qtts_jax.training.log import METRICS, read_metrics

COLUMNS, PANEL = 4, (3.6, 2.4)
# Scalars that fall by more than this factor have a logarithmic axis: the first steps of a run would
# otherwise flatten the rest.
WIDE = 5.0
NO_SCALARS = ("step", "time")
Curves = dict[str, tuple[np.ndarray, np.ndarray]]


def read_curves(run: Path, only: list[str] | None = None) -> Curves:
    """Steps and values of every scalar of a run; a `TrainingError` if there is none."""
    rows = read_metrics(run)
    names = dict.fromkeys(name for row in rows for name in row if name not in NO_SCALARS)
    names = [name for name in names if only is None or any(word in name for word in only)]
    if not names:
        chosen = f" whose name has one of {only}" if only else ""
        raise TrainingError(f"{run / METRICS} has no scalar{chosen}; draw a run that has some.")
    return {
        name: tuple(np.array([(row["step"], row[name]) for row in rows if name in row], float).T)
        for name in names
    }


def smoothed(values: np.ndarray) -> np.ndarray:
    """Mean over the last fiftieth of all values: [N] -> [N]."""
    width = max(len(values) // 50, 1)
    return np.convolve(np.pad(values, (width - 1, 0), "edge"), np.full(width, 1 / width), "valid")


def draw(runs: dict[str, Curves], out: Path) -> int:
    """Draw all runs and return the number of panels."""
    colormaps = import_extra("matplotlib", "train", "the picture").colormaps
    figures = import_extra("matplotlib.figure", "train", "the picture")
    names = list(dict.fromkeys(name for curves in runs.values() for name in curves))
    columns = min(COLUMNS, len(names))
    lines = -(-len(names) // columns)
    keys = 2 * columns
    height = lines * PANEL[1] + 0.3 * -(-len(runs) // keys)
    figure = figures.Figure(figsize=(columns * PANEL[0], height), layout="constrained")
    colours = colormaps["tab10" if len(runs) <= 10 else "gist_rainbow"].resampled(len(runs))(
        range(len(runs))
    )
    for i, name in enumerate(names):
        axes = figure.add_subplot(lines, columns, i + 1, title=name)
        falls = False
        for number, (run, curves) in enumerate(runs.items()):
            if name in curves:
                steps, values = curves[name]
                axes.plot(steps, values, color=colours[number], alpha=0.25, linewidth=0.8)
                axes.plot(steps, smoothed(values), color=colours[number], label=run)
                falls |= values.min() > 0 and values[0] > WIDE * values[-1]
        if falls:
            axes.set_yscale("log")
    handles = {h.get_label(): h for axes in figure.axes for h in axes.get_lines()}
    figure.legend(
        [handles[run] for run in runs], list(runs), loc="outside upper center", ncols=keys
    )
    figure.savefig(out, dpi=110)
    return len(names)


def main() -> None:
    """Read, draw and print the numbers of panels and runs."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="directory with metrics.jsonl"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", help="parts of scalar names to keep (default: all)"
    )
    parser.add_argument("--out", type=Path, default=Path("curves.png"), help="picture to write")
    args = parser.parse_args()
    runs = {str(run): read_curves(run, args.only) for run in args.runs}
    print(f"{args.out}: {draw(runs, args.out)} panels, {len(runs)} runs")


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
