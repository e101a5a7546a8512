"""The part of a requests file that one of several processes speaks, and its own directory.

Every process has its results, and resumes from them, in a directory that no other process uses, so
hosts may share a file system or not. Lines are dealt out in turn: process p of n has the lines p,
p + n, p + 2n, ... of those that are not blank.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from qtts_jax import processes
from qtts_jax.cli.batch.lines import Line
from qtts_jax.errors import RequestError

# Line number, id if it is known, error.
Fault = tuple[int, str | None, Exception]

_NAME = re.compile(r"process-\d+-of-(\d+)")


def own_directory(out: Path) -> Path:
    """The directory for the results of this process: `out`, or `out/process-P-of-N` of several.

    Raises:
        RequestError: `out` has results of another number of processes, whose lines were dealt out
            in another way.
    """
    count = processes.count()
    found = [_NAME.fullmatch(path.name) for path in out.iterdir()] if out.is_dir() else []
    for other in (int(match[1]) for match in found if match):
        if other != count:
            raise RequestError(
                f"{out} has results of {other} processes, and this run has {count}; go on with "
                f"{other}, or name another directory."
            )
    return out if count == 1 else out / f"process-{processes.number()}-of-{count}"


def own_share(lines: Sequence[Line], faults: Sequence[Fault]) -> tuple[list[Line], list[Fault]]:
    """The lines that this process speaks, and the faulty ones that it reports.

    Args:
        lines: the valid lines of the whole file.
        faults: its other lines.
    """
    numbers = sorted([line.number for line in lines] + [fault[0] for fault in faults])
    own = set(numbers[processes.number() :: processes.count()])
    return (
        [line for line in lines if line.number in own],
        [fault for fault in faults if fault[0] in own],
    )
