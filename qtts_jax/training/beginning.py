"""The state that a session begins with: of the newest checkpoint, of another run, or new."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from qtts_jax import processes
from qtts_jax.errors import CheckpointError
from qtts_jax.training import checkpoints
from qtts_jax.training.programs import TrainingPrograms
from qtts_jax.training.state import TrainState


def beginning(
    programs: TrainingPrograms, directory: Path, start: Path | None
) -> tuple[TrainState, dict[str, Any] | None]:
    """The state to continue from, on the devices, with the task's counters set to its step.

    Args:
        programs: of the run.
        directory: of the run's checkpoints, of which the newest is read.
        start: a checkpoint of another run's weights, for a run that has none of its own.

    Returns:
        the state, and the JSON values saved with its checkpoint; None where the run has none.

    Raises:
        CheckpointError: a checkpoint is damaged or of another model, or the processes of the run
            do not see the same ones.
    """
    found = checkpoints.checkpoints(directory)
    _check_shared(directory, found)
    if not found:
        new = programs.first()
        return programs.counted(new if start is None else _started(programs, new, start)), None
    state, run = checkpoints.restore(found[-1], programs.shapes, programs.shardings)
    return programs.counted(state), run


def _started(programs: TrainingPrograms, new: TrainState, start: Path) -> TrainState:
    """The first state, with the weights and extras of another run."""
    shapes, places = (
        x._replace(optimizer={}, average=None) for x in (programs.shapes, programs.shardings)
    )
    given = checkpoints.restore(start, shapes, places)[0]
    average = None if new.average is None else jax.tree.map(jnp.copy, given.params)
    return new._replace(params=given.params, extras=given.extras, average=average)


def _check_shared(directory: Path, found: Sequence[Path]) -> None:
    """Check that this process sees the checkpoints that process 0 sees."""
    newest = zlib.crc32(found[-1].name.encode()) if found else 0
    if newest != processes.agreed(newest):
        raise CheckpointError(
            f"process {processes.number()} and process 0 see different checkpoints in "
            f"{directory}; name a directory on a file system that all hosts share."
        )
