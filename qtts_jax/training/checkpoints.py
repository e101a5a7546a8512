"""Checkpoints of a run: whole or absent, the newest few kept, and packed into small files.

    checkpoints/step_00001000/params/       the whole `TrainState` (Orbax, see io/checkpoint.py)
    checkpoints/step_00001000/run.json      what is no array: step, data position, watch

A checkpoint appears under its name only when it is complete, so a kill at any moment leaves the
earlier ones. `pack` cuts one into files of bounded size with a checksum each, and `unpack` joins
them on another machine.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qtts_jax.errors import CheckpointError
from qtts_jax.io.atomic_directory import new_directory
from qtts_jax.io.checkpoint import load_params, save_params
from qtts_jax.training.state import TrainState

RUN = "run.json"
PIECES = "pieces.json"
PIECE_BYTES = 16 << 20
_NAME = re.compile(r"step_(\d{8,})")
_LEFTOVER = re.compile(r"step_\d{8,}\.(partial|replaced|removed)-")


def save(directory: Path, state: TrainState, run: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of a step into `directory`, then remove all but the newest `keep`.

    Args:
        run: JSON values to resume with beside the arrays.

    Raises:
        CheckpointError: it cannot be written; earlier checkpoints stay.
    """
    destination = directory / f"step_{int(state.step):08d}"
    if not destination.exists():
        with new_directory(destination, overwrite=False) as partial:
            save_params(partial, state)
            (partial / RUN).write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    for old in checkpoints(directory)[:-keep]:
        # Renamed first: half of a removed checkpoint must not look like a whole one.
        removed = old.with_name(f"{old.name}.removed-{os.getpid()}")
        os.replace(old, removed)
        shutil.rmtree(removed)
    return destination


def checkpoints(directory: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    if not directory.is_dir():
        return []
    found = [p for p in directory.iterdir() if _NAME.fullmatch(p.name) and (p / RUN).is_file()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step_")))


def sweep(directory: Path) -> None:
    """Remove what killed processes left half-written or half-removed."""
    if directory.is_dir():
        for path in list(directory.iterdir()):
            if _LEFTOVER.match(path.name):
                shutil.rmtree(path)


def restore(
    checkpoint: Path, shapes: TrainState, shardings: TrainState
) -> tuple[TrainState, dict[str, Any]]:
    """Read a checkpoint straight onto the devices.

    Args:
        shapes, shardings: the state as `jax.ShapeDtypeStruct`, and where each array goes; the mesh
            may be another than the one that wrote the checkpoint.

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


def pack(checkpoint: Path, destination: Path, piece_bytes: int = PIECE_BYTES) -> list[Path]:
    """Cut a checkpoint into files of at most `piece_bytes` in the new folder `destination`.

    The files are pieces of one tar archive; `pieces.json` lists their sizes and SHA-256 sums.

    Returns:
        all files, `pieces.json` last.

    Raises:
        CheckpointError: there is no such checkpoint, or `destination` exists or cannot be made.
    """
    if not (checkpoint / RUN).is_file():
        raise CheckpointError(f"{checkpoint} is no training checkpoint: it has no {RUN}.")
    with new_directory(destination, overwrite=False) as partial:
        writer = _Pieces(partial, piece_bytes)
        with tarfile.open(fileobj=writer, mode="w|") as archive:  # type: ignore[call-overload]
            for path in sorted(checkpoint.rglob("*")):
                name = f"{checkpoint.name}/{path.relative_to(checkpoint).as_posix()}"
                archive.add(path, name, recursive=False, filter=_anonymous)
        listing: dict[str, Any] = {"checkpoint": checkpoint.name, "pieces": writer.finish()}
        (partial / PIECES).write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")
    return [destination / piece["name"] for piece in listing["pieces"]] + [destination / PIECES]


def unpack(source: Path, directory: Path) -> Path:
    """Join the pieces in `source` to a checkpoint in `directory`, the checkpoints of a run.

    Returns:
        the checkpoint; it is as if it had been saved there.

    Raises:
        CheckpointError: a piece is missing or differs from its checksum (all are named), or the
            checkpoint is already there or cannot be written; nothing is left behind.
    """
    try:
        listing = json.loads((source / PIECES).read_text(encoding="utf-8"))
        name, pieces = str(listing["checkpoint"]), list(listing["pieces"])
        wanted = {str(piece["name"]): str(piece["sha256"]) for piece in pieces}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{source} holds no packed checkpoint: {PIECES} cannot be used ({error}); copy it "
            "again."
        ) from error
    wrong = [n for n, digest in wanted.items() if _digest(source / n) != digest]
    if wrong or not _NAME.fullmatch(name):
        raise CheckpointError(
            f"{source} is damaged: {', '.join(wrong) or PIECES} missing or changed; copy again."
        )
    with new_directory(directory / name, overwrite=False) as partial:
        reader = io.BufferedReader(_Joined([source / n for n in wanted]))
        with tarfile.open(fileobj=reader, mode="r|") as archive:
            for member in archive:
                member.name = member.name.removeprefix(f"{name}/")
                archive.extract(member, partial, filter="data")
    return directory / name


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """No owner and no time: the same checkpoint gives the same pieces."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Pieces:
    """A file that is only written, spread over numbered files of bounded size."""

    def __init__(self, directory: Path, piece_bytes: int) -> None:
        self._directory = directory
        self._size = piece_bytes
        self._held = bytearray()
        self._done: list[dict[str, Any]] = []

    def write(self, data: bytes) -> int:
        """Take bytes; full pieces go to disk."""
        self._held += data
        while len(self._held) >= self._size:
            self._put(bytes(self._held[: self._size]))
            del self._held[: self._size]
        return len(data)

    def finish(self) -> list[dict[str, Any]]:
        """Write the rest; name, bytes and SHA-256 of every piece."""
        if self._held:
            self._put(bytes(self._held))
        return self._done

    def _put(self, content: bytes) -> None:
        name = f"piece-{len(self._done):05d}"
        (self._directory / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        self._done.append({"name": name, "bytes": len(content), "sha256": digest})


class _Joined(io.RawIOBase):
    """Several files read as one, from the first byte to the last."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__()
        self._blocks = self._read_all(paths)
        self._held = b""

    @staticmethod
    def _read_all(paths: list[Path]) -> Iterator[bytes]:
        for path in paths:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    yield block

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill as much of `buffer` as is at hand; 0 at the end."""
        if not self._held:
            self._held = next(self._blocks, b"")
        count = min(len(buffer), len(self._held))
        buffer[:count], self._held = self._held[:count], self._held[count:]
        return count
