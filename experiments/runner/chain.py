"""Library of the ablations: pieces of work in folders named by what determines them.

A piece is made once, whoever needs it: variations that differ in the talker alone share their
tokenizer. It is finished when its folder has a record, which is written last; work that was killed
before goes on in the same folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import command
from qtts_jax.io.atomic_files import sweep, write_whole

DONE = "done.json"
Records = dict[str, dict[str, Any]]
"""What finished pieces have recorded, by their names."""


@dataclass(frozen=True)
class Piece:
    """One piece of a run.

    Attributes:
        name: such as "tokenizer".
        key: hash of everything that determines its result (`key_of`).
        make: (folder, records of earlier pieces) -> JSON values to record; files of its own go into
            the folder, and what an interrupted call has left there may be used.
    """

    name: str
    key: str
    make: Callable[[Path, Records], dict[str, Any]]

    def folder(self, root: Path) -> Path:
        """Where it is made."""
        return root / f"{self.name}-{self.key}"


def key_of(*inputs: object) -> str:
    """A short hash of values by their `repr` (frozen dataclasses, strings, numbers)."""
    return hashlib.sha256("\n".join(map(repr, inputs)).encode()).hexdigest()[:12]


def record(piece: Piece, root: Path) -> dict[str, Any] | None:
    """What a finished piece has recorded; None if it is not finished."""
    path = piece.folder(root) / DONE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def make(
    pieces: Sequence[Piece], root: Path, started: Callable[[str], None] = lambda name: None
) -> Records:
    """Make the pieces that are missing, in order.

    Args:
        started: called with the name of each piece that is not finished, before it is made.

    Returns:
        the records of all.
    """
    found: Records = {}
    for piece in pieces:
        done = record(piece, root)
        if done is None:
            started(piece.name)
            folder = piece.folder(root)
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
            done = piece.make(folder, found)
            write_whole(folder / DONE, (json.dumps(done, indent=1) + "\n").encode())
        found[piece.name] = done
    return found


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
