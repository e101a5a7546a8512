"""Library of the ablations: one training of a task to its last step, with totals and curves."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import command
from experiments.runner.flops import count_flops
from experiments.runner.results import machine
from qtts_jax.training import checkpoints
from qtts_jax.training.log import read_metrics
from qtts_jax.training.state import TrainState
from qtts_jax.training.task import Batches, Task
from qtts_jax.training.trainer import Trainer
from qtts_jax.training.trainer_config import TrainerConfig

MOST_POINTS = 60  # of a curve in a result
Totals = Mapping[str, float]


class Counted:
    """Batches that add up totals; these are part of the position, so a resumed run has the same.

    Args:
        totals: what one batch adds, by name.
    """

    def __init__(self, batches: Batches, totals: Callable[[dict[str, np.ndarray]], Totals]) -> None:
        self._batches, self._of = batches, totals
        self._totals: dict[str, float] = {}

    def __next__(self) -> dict[str, np.ndarray]:
        batch = next(self._batches)
        for name, value in self._of(batch).items():
            self._totals[name] = self._totals.get(name, 0.0) + value
        return batch

    def state(self) -> dict[str, Any]:
        """The position, and the totals of the batches before it."""
        return {"batches": self._batches.state(), "totals": dict(self._totals)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position."""
        self._batches.restore(state["batches"])
        self._totals = dict(state["totals"])


def train(
    task: Task,
    batches: Batches,
    totals: Callable[[dict[str, np.ndarray]], Totals],
    config: TrainerConfig,
    directory: Path,
    seed: int,
    max_seconds: float | None,
) -> tuple[TrainState, dict[str, Any]]:
    """Train in `directory`, from its newest checkpoint if it has one.

    Args:
        totals: of a batch, besides its FLOPs.
        max_seconds: see `Trainer.run`.

    Returns:
        the last state, and what to record: `steps` done of the `planned`, `flops`, the totals,
        `parameters`, `seconds` (the median time of a step times the steps, without compiling),
        `machine` and `curves` (values of each logged scalar by step).

    Raises:
        SystemExit: a signal stopped training after a checkpoint; status 128 plus its number.
    """
    flops: dict[Any, float] = {}
    shapes = jax.eval_shape(task.init, jax.random.key(0))

    def counted(batch: dict[str, np.ndarray]) -> Totals:
        given = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch.items()}
        key = tuple(sorted((name, x.shape) for name, x in given.items()))
        if key not in flops:
            flops[key] = count_flops(task.gradients, *shapes, given, jax.random.key(0))
        return {"flops": flops[key], **totals(batch)}

    trainer = Trainer(
        task, Counted(batches, counted), dataclasses.replace(config, seed=seed), directory
    )
    outcome = trainer.run(max_seconds)
    if outcome.signal is not None:
        raise SystemExit(128 + signal.Signals[outcome.signal].value)
    run = json.loads((outcome.checkpoint / checkpoints.RUN).read_text(encoding="utf-8"))
    rows = read_metrics(directory)
    return trainer.newest(), {
        "steps": outcome.step,
        "planned": config.steps,
        "seconds": round(_step_seconds(rows) * outcome.step, 1),
        "parameters": sum(x.size for x in jax.tree.leaves(shapes[0])),
        **run["data"]["totals"],
        "machine": machine(),
        "curves": _curves(rows),
    }


def _step_seconds(rows: list[dict[str, Any]]) -> float:
    """Median seconds of a step between two lines of a log; 0 with a single line."""
    steps, times = (np.array([row[name] for row in rows], float) for name in ("step", "time"))
    ahead = np.diff(steps) > 0
    return float(np.median(np.diff(times)[ahead] / np.diff(steps)[ahead])) if ahead.any() else 0.0


def _curves(rows: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """[step, value] pairs of the losses and accuracies, at most `MOST_POINTS` of each."""
    kept = rows[:: -(-len(rows) // MOST_POINTS)]
    if rows[-1] is not kept[-1]:
        kept = [*kept, rows[-1]]
    wanted = ("loss", "mel", "asr", "teacher", "ce_", "accuracy_", "envelope", "reading")
    names = sorted({n for row in rows for n in row if n.startswith(wanted)})
    return {
        name: [[row["step"], float(f"{row[name]:.5g}")] for row in kept if name in row]
        for name in names
    }


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
