"""Orbax -> released layout (safetensors), one parameter at a time."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from convert.computed import ROUNDED_TABLES, Computed
from convert.faults import Faults
from convert.folders import (
    EXPORT_MARKER,
    OWN,
    checkpoint_folders,
    copy_side_files,
    read_folders,
)
from convert.models import is_tokenizer, read_model
from convert.rules import Part, plan
from convert.safetensors_stream import SINGLE_FILE, write_file
from qtts_jax.configs.tts import CodePredictorConfig, TTSConfig
from qtts_jax.errors import CheckpointError
from qtts_jax.io.atomic_directory import new_directory, require_space
from qtts_jax.io.checkpoint import iterate_params, read_config, read_notes, stored_params


def to_torch(
    source: Path, destination: Path, overwrite: bool = False, report: Callable[[str], None] = print
) -> None:
    """Export the converted or trained checkpoint `source` to the new folder `destination`.

    Peak memory is one parameter and some tens of megabytes.

    Raises:
        CheckpointError: `source` is damaged or does not fit its config (all faults at once), or
            `destination` cannot be made (see `new_directory`); nothing is left behind.
    """
    with new_directory(destination, overwrite, read_folders(source), OWN) as partial:
        for folder, parts in read_mapping(source).items():
            copy_side_files(source / folder, partial / folder)
            _write(source / folder, partial / folder / SINGLE_FILE, parts)
            report(f"{source / folder}: {len(parts)} tensors")
        (partial / EXPORT_MARKER).write_text('{"exported": true}\n', encoding="utf-8")
    report(f"wrote {destination}")


def read_mapping(source: Path) -> dict[str, list[Part | Computed]]:
    """Folder -> the torch tensors to write; reads configs and metadata only.

    Raises:
        CheckpointError: all of: parameters missing, unknown, of another shape, not read by any
            rule or read twice.
    """
    faults = Faults()
    mapping = {
        folder: _map_folder(source / folder, faults) for folder in checkpoint_folders(source)
    }
    faults.raise_any(str(source))
    return mapping


def _map_folder(folder: Path, faults: Faults) -> list[Part | Computed]:
    _expect_official_pattern(folder)
    stored, model = stored_params(folder), read_model(folder)
    for name in sorted(stored.keys() - model.shapes.keys()):
        faults.add("parameters have no place in the model", name)
    for name, shape in model.shapes.items():
        if name not in stored:
            faults.add("parameters are missing", name)
        elif stored[name].shape != shape:
            faults.add(
                "parameters have another shape",
                f"{name} {list(stored[name].shape)} (expected {list(shape)})",
            )
    return [*plan(model.rules, model.shapes, faults), *model.computed]


def _expect_official_pattern(folder: Path) -> None:
    """Refuse a code predictor that the official class would run in another order.

    Raises:
        CheckpointError: it is not sequential.
    """
    config = read_config(folder)
    if is_tokenizer(config):
        return
    predictor = TTSConfig.from_hf(config).talker.code_predictor
    if predictor is not None and predictor.pattern != CodePredictorConfig.pattern:
        raise CheckpointError(
            f"the code predictor of {folder} has the pattern {predictor.pattern!r}, but the "
            f"official package has {CodePredictorConfig.pattern!r} only; use this checkpoint with "
            "qtts_jax, or export one of that pattern."
        )


def _write(folder: Path, path: Path, parts: list[Part | Computed]) -> None:
    stored = stored_params(folder)
    tables = [part for part in parts if isinstance(part, Computed)]
    by_target: dict[str, list[Part]] = {}
    for part in parts:
        if isinstance(part, Part):
            by_target.setdefault(part.target, []).append(part)
    # The official model computes with the values that it finds, so they are rounded only where the
    # source of this checkpoint had them so.
    rounded = read_notes(folder).get(ROUNDED_TABLES, {})
    kinds = {table.source: np.dtype(rounded.get(table.source, np.float32)) for table in tables}
    layout = {table.source: (table.shape, kinds[table.source]) for table in tables}
    for target, places in by_target.items():
        layout |= {part.source: (part.shape, stored[target].dtype) for part in places}
    size = sum(math.prod(shape) * kind.itemsize for shape, kind in layout.values())
    require_space(path.parent, size)
    with write_file(path, layout) as file:
        for table in tables:
            file.write(table.source, table.make().astype(kinds[table.source]))
        for name, array in iterate_params(folder):
            for part in by_target[name]:
                file.write(part.source, part.view(array))
            del array  # before the next one is read
