"""Library of the training commands: checkpoints as files of at most 16 MiB with checksums.

The models of this repository were trained in sessions of minutes on machines between which only
files of that size could be copied, so a run's weights are packed at the end of each session. A
training run that stays on one machine needs none of this.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments import command
from qtts_jax.errors import CheckpointError
from qtts_jax.io.atomic_directory import new_directory
from qtts_jax.training import checkpoints

LISTING = "pieces.json"
PART_BYTES = 16 << 20


def pack(checkpoint: Path, destination: Path, part_bytes: int = PART_BYTES) -> list[Path]:
    """Cut a checkpoint into files of at most `part_bytes` in the new folder `destination`.

    The files are consecutive parts of one tar archive; `pieces.json` lists their
    sizes and SHA-256 sums.

    Returns:
        all files, `pieces.json` last.

    Raises:
        CheckpointError: there is no such checkpoint, or `destination` exists or cannot be made.
    """
    if not (checkpoint / checkpoints.RUN).is_file():
        raise CheckpointError(
            f"{checkpoint} is no training checkpoint: it has no {checkpoints.RUN}."
        )
    with new_directory(destination, overwrite=False) as partial:
        writer = _PartWriter(partial, part_bytes)
        with tarfile.open(fileobj=writer, mode="w|") as archive:  # type: ignore[call-overload]
            for path in sorted(checkpoint.rglob("*")):
                name = f"{checkpoint.name}/{path.relative_to(checkpoint).as_posix()}"
                archive.add(path, name, recursive=False, filter=_anonymous)
        listing: dict[str, Any] = {"checkpoint": checkpoint.name, "pieces": writer.finish()}
        (partial / LISTING).write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")
    return [destination / part["name"] for part in listing["pieces"]] + [destination / LISTING]


def unpack(source: Path, directory: Path) -> Path:
    """Join the parts in `source` to a checkpoint in `directory`, the checkpoints of a run.

    Returns:
        the checkpoint, as `checkpoints.save` would have written it there.

    Raises:
        CheckpointError: a part is missing or differs from its checksum (all are named), or the
            checkpoint is already there or cannot be written; nothing is left behind.
    """
    try:
        listing = json.loads((source / LISTING).read_text(encoding="utf-8"))
        name, parts = str(listing["checkpoint"]), list(listing["pieces"])
        wanted = {str(part["name"]): str(part["sha256"]) for part in parts}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{source} holds no packed checkpoint: {LISTING} cannot be used ({error}); copy it "
            "again."
        ) from error
    wrong = [n for n, digest in wanted.items() if _digest(source / n) != digest]
    if wrong or not checkpoints.NAME.fullmatch(name):
        raise CheckpointError(
            f"{source} is damaged: {', '.join(wrong) or LISTING} missing or changed; copy again."
        )
    with new_directory(directory / name, overwrite=False) as partial:
        reader = io.BufferedReader(_JoinedReader([source / n for n in wanted]))
        with tarfile.open(fileobj=reader, mode="r|") as archive:
            # Python before 3.11.4 has no filters.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            for member in archive:
                member.name = member.name.removeprefix(f"{name}/")
                archive.extract(member, partial)
    return directory / name


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Drop owner and time, so that the same checkpoint gives the same bytes."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _PartWriter:
    """A write-only file, spread over numbered files of bounded size."""

    def __init__(self, directory: Path, part_bytes: int) -> None:
        self._directory = directory
        self._size = part_bytes
        self._held = bytearray()
        self._done: list[dict[str, Any]] = []

    def write(self, data: bytes) -> int:
        """Append bytes; every full part is written to disk."""
        self._held += data
        while len(self._held) >= self._size:
            self._put(bytes(self._held[: self._size]))
            del self._held[: self._size]
        return len(data)

    def finish(self) -> list[dict[str, Any]]:
        """Write the rest; returns name, bytes and SHA-256 of every part."""
        if self._held:
            self._put(bytes(self._held))
        return self._done

    def _put(self, content: bytes) -> None:
        name = f"piece-{len(self._done):05d}"
        (self._directory / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        self._done.append({"name": name, "bytes": len(content), "sha256": digest})


class _JoinedReader(io.RawIOBase):
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


if __name__ == "__main__":
    raise SystemExit(
        command.exit_status_of_library(
            __file__, "experiments.train.tokenizer", "experiments.train.talker"
        )
    )
