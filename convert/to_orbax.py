"""Released layout (safetensors) -> Orbax, one parameter at a time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert.companions import check_companions
from convert.computed import ROUNDED_TABLES, Computed
from convert.faults import Faults
from convert.folders import OWN, checkpoint_folders, copy_side_files, read_folders
from convert.models import Model, read_model
from convert.rules import Part, Shape, plan
from convert.safetensors_stream import Tensor, blocks, find_shards, read_header
from qtts_jax.errors import CheckpointError
from qtts_jax.io.atomic_directory import new_directory
from qtts_jax.io.checkpoint import PARAMS, save_params
from qtts_jax.io.streamed_arrays import LazyArray


@dataclass(frozen=True)
class Parameter:
    """One parameter to make: its shape and the torch tensors that fill it."""

    shape: Shape
    filling: list[tuple[Part, Tensor]]

    def lazy(self) -> LazyArray:
        """The parameter as an array that reads its tensors only when it is written."""
        dtype = self.dtype

        def load() -> np.ndarray:
            array = np.empty(self.shape, dtype)
            for part, tensor in self.filling:
                tensor.read_into(part.view(array))
                if not _all_finite(part.view(array)):
                    raise CheckpointError(
                        f"{tensor.path} cannot be converted: {part.source} holds NaN or infinite "
                        "values; use another checkpoint of this model."
                    )
            return array

        return LazyArray(self.shape, dtype, load)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the tensors, or one that holds the values of all their types."""
        found = {tensor.dtype for _, tensor in self.filling}
        if len(found) == 1:
            return found.pop()
        return np.dtype(np.float64 if np.dtype(np.float64) in found else np.float32)

    @property
    def mixed(self) -> str | None:
        """Names of the types of the tensors where there are several."""
        names = sorted({str(tensor.dtype) for _, tensor in self.filling})
        return ", ".join(names) if len(names) > 1 else None


def to_orbax(
    source: Path, destination: Path, overwrite: bool = False, report: Callable[[str], None] = print
) -> None:
    """Convert the released checkpoint or tokenizer folder `source` into the new `destination`.

    Peak memory is one parameter and some tens of megabytes.

    Raises:
        CheckpointError: for every fault of `source` at once (see `read_mapping`), or of
            `destination` (see `new_directory`); nothing is left behind.
    """
    with new_directory(destination, overwrite, read_folders(source), OWN) as partial:
        for folder, parameters in read_mapping(source).items():
            copy_side_files(source / folder, partial / folder)
            rounded = rounded_tables(source / folder)
            save_params(
                partial / folder,
                {name: p.lazy() for name, p in parameters.items()},
                {ROUNDED_TABLES: rounded} if rounded else None,
            )
            for message in remarks(source / folder, parameters):
                report(message)
            size = sum(t.nbytes for p in parameters.values() for _, t in p.filling)
            report(f"{source / folder}: {len(parameters)} parameters, {size / 1e6:.1f} MB")
            for name, dtype in rounded.items():
                report(
                    f"{source / folder}: {name} is stored in {dtype}; the official model computes "
                    "with these rounded values, this package with those of the formula"
                )
    report(f"wrote {destination}")


def read_mapping(source: Path) -> dict[str, dict[str, Parameter]]:
    """Folder -> path of each parameter -> how it is filled.

    Reads configs and headers, and of the tensors only those that are computed, to check them.

    Raises:
        CheckpointError: a damaged or missing file, or all of: torch keys without a place, missing
            keys, keys of another shape, keys stored twice, keys that hold integers, computed
            tensors of other values, parameters not filled or filled twice, companion files that are
            missing or cannot be used.
    """
    if (source / PARAMS).is_dir():
        raise CheckpointError(
            f"{source} is already converted; `python -m convert --to-torch {source} DESTINATION` "
            "goes back to the released layout."
        )
    faults = Faults()
    mapping = {
        folder: _map_folder(source / folder, faults) for folder in checkpoint_folders(source)
    }
    faults.raise_any(str(source))
    return mapping


def rounded_tables(folder: Path) -> dict[str, str]:
    """Names of the computed tensors that `folder` stores in less than float32, and their dtypes."""
    tables = {table.source for table in read_model(folder).computed}
    return {
        name: str(tensor.dtype)
        for shard in find_shards(folder)
        for name, tensor in read_header(shard).items()
        if name in tables and tensor.dtype.itemsize < 4
    }


def remarks(folder: Path, parameters: Mapping[str, Parameter]) -> list[str]:
    """What a conversion of `folder` leaves out or widens, a sentence each."""
    found = []
    model = read_model(folder)
    ignored = [name for name in _stored(folder, Faults()) if _is_ignored(name, model)]
    if ignored:
        found.append(
            f"{folder}: {len(ignored)} tensors of {ignored[0].partition('.')[0]} are left out; "
            "a model of this type does not use them, and neither does the official class"
        )
    for name, parameter in parameters.items():
        if parameter.mixed:
            found.append(
                f"{folder}: {name} is stored in {parameter.mixed}; it is written in "
                f"{parameter.dtype}"
            )
    return found


def torch_parts(source: Path) -> dict[str, list[Part | Computed]]:
    """Folder -> the places of its torch tensors; raises as `read_mapping`."""
    return {
        folder: [
            *(part for parameter in parameters.values() for part, _ in parameter.filling),
            *read_model(source / folder).computed,
        ]
        for folder, parameters in read_mapping(source).items()
    }


def _map_folder(folder: Path, faults: Faults) -> dict[str, Parameter]:
    model = read_model(folder)
    stored = _stored(folder, faults)
    if model.is_tts:
        check_companions(folder, faults)
    parts = plan(model.rules, model.shapes, faults)
    known = {part.source for part in parts} | {table.source for table in model.computed}
    for name in sorted(stored.keys() - known):
        if _is_ignored(name, model):
            continue
        if name not in model.unused:
            faults.add("keys have no place in the model", name)
        elif stored[name].shape != model.unused[name]:
            _other_shape(name, stored[name], model.unused[name], faults)
    for table in model.computed:
        _check_computed(table, stored.get(table.source), faults)
    parameters = {name: Parameter(shape, []) for name, shape in model.shapes.items()}
    for part in parts:
        if part.source not in stored:
            faults.add("keys are missing", f"{part.source} (for {part.describe()})")
            continue
        tensor = stored[part.source]
        if tensor.shape != part.shape:
            _other_shape(part.source, tensor, part.shape, faults)
        elif tensor.dtype.kind in "biu":
            faults.add("keys hold integers instead of floats", f"{part.source} ({tensor.dtype})")
        else:
            parameters[part.target].filling.append((part, tensor))
    return parameters


def _stored(folder: Path, faults: Faults) -> dict[str, Tensor]:
    """The tensors of all shards by name; those in two shards go to `faults`."""
    stored: dict[str, Tensor] = {}
    for shard in find_shards(folder):
        for name, tensor in read_header(shard).items():
            if name in stored:
                shards = f"{stored[name].path.name} and {shard.name}"
                faults.add("keys are stored twice", f"{name} in {shards}")
            stored[name] = tensor
    return stored


def _is_ignored(name: str, model: Model) -> bool:
    return any(name.startswith(prefix) for prefix in model.ignored)


def _all_finite(array: np.ndarray) -> bool:
    """Whether no element is NaN or infinite; block by block, to bound memory."""
    return all(np.isfinite(block).all() for block in blocks(array))


def _check_computed(table: Computed, tensor: Tensor | None, faults: Faults) -> None:
    if tensor is None:
        faults.add("keys are missing", f"{table.source} (for {table.describe()})")
        return
    if tensor.shape != table.shape:
        _other_shape(table.source, tensor, table.shape, faults)
        return
    values = np.empty(tensor.shape, tensor.dtype)
    tensor.read_into(values)
    if not table.agrees(values):
        faults.add("computed tables have other values than their formula", table.source)


def _other_shape(source: str, tensor: Tensor, expected: Shape, faults: Faults) -> None:
    shapes = f"{list(tensor.shape)} (expected {list(expected)})"
    faults.add("keys have another shape", f"{source} {shapes}")
