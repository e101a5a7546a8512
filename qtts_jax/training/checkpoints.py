"""Checkpoints of a training run: written atomically, the newest few kept.

    checkpoints/step_00001000/params/       the `TrainState` (Orbax, see io/checkpoint.py)
    checkpoints/step_00001000/run.json      step, data position, divergence check, open log window

A checkpoint appears under its name only when it is complete, so a process killed at any moment
leaves the earlier ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from qtts_jax import processes
from qtts_jax.errors import CheckpointError
from qtts_jax.io.atomic_directory import new_directory
from qtts_jax.io.checkpoint import load_params, save_params
from qtts_jax.training.state import TrainState

RUN = "run.json"
NAME = re.compile(r"step_(\d{8,})")
_LEFTOVER = re.compile(r"step_\d{8,}\.(partial|replaced|removed)-")


def save(directory: Path, state: TrainState, run: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of a step into `directory`, then remove all but the newest `keep`.

    Args:
        run: JSON values to resume with, besides the arrays.

    Several processes that train together call this all; each writes its shards, process 0 the rest.

    Raises:
        CheckpointError: it cannot be written; earlier checkpoints stay.
    """
    destination = directory / f"step_{int(state.step):08d}"
    if not destination.exists():
        with new_directory(destination, overwrite=False, together=True) as partial:
            save_params(partial, state)
            if processes.writes():
                (partial / RUN).write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    if not processes.writes():
        return destination
    for old in checkpoints(directory)[:-keep]:
        # Renamed first, so that a half-removed checkpoint never looks complete.
        removed = old.with_name(f"{old.name}.removed-{os.getpid()}")
        os.replace(old, removed)
        shutil.rmtree(removed)
    return destination


def checkpoints(directory: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    if not directory.is_dir():
        return []
    found = [p for p in directory.iterdir() if NAME.fullmatch(p.name) and (p / RUN).is_file()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step_")))


def sweep(directory: Path) -> None:
    """Remove half-written and half-removed checkpoints of killed processes."""
    if directory.is_dir() and processes.writes():
        for path in list(directory.iterdir()):
            if _LEFTOVER.match(path.name):
                shutil.rmtree(path)


def restore(
    checkpoint: Path, shapes: TrainState, shardings: TrainState
) -> tuple[TrainState, dict[str, Any]]:
    """Read a checkpoint onto the devices.

    Args:
        shapes, shardings: of the state (`jax.ShapeDtypeStruct`); the mesh may differ from the one
            that wrote the checkpoint.

    Raises:
        CheckpointError: absent, damaged, or of another model or optimizer.
    """
    run = checkpoint / RUN
    try:
        data = json.loads(run.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint} is no training checkpoint: {run} cannot be read ({error}); resume from "
            "another one."
        ) from error
    return load_params(checkpoint, shapes, sharding=shardings), data
