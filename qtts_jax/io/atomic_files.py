"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import re
import secrets
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from qtts_jax.errors import QTTSError

# Identifies the machine: several may share a directory, and process ids are per machine.
_HOST = f"{zlib.crc32(platform.node().encode()) & 0xFFFF:04x}"
_PARTIAL = re.compile(rf"\..+\.{_HOST}-(\d+)-[0-9a-f]{{8}}\.partial")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its target and rename it, so that no reader ever sees a part of it.

    Raises:
        QTTSError: the directory does not exist, the disk is full, or writing is not allowed.
    """
    if not path.parent.is_dir():
        raise QTTSError(
            f"cannot write {path}: the directory {path.parent} does not exist; create it first."
        )
    partial = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:
            file.write(content)
        os.replace(partial, path)
    except OSError as error:
        raise QTTSError(f"cannot write {path}: {error}.") from error
    finally:
        # A name that is too long is no file to remove either; the error above is the one to report.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def sweep(directory: Path) -> None:
    """Remove the partial files that killed `write_whole` calls left in a directory.

    Those of processes that still run are left alone, and so are those of other machines.
    """
    for path in directory.glob(".*.partial"):
        found = _PARTIAL.fullmatch(path.name)
        if found and not _runs(int(found[1])):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it belongs to another user
    return True


def npy_bytes(array: np.ndarray) -> bytes:
    """The content of a `.npy` file."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The content of an uncompressed `.npz` file."""
    content = io.BytesIO()
    np.savez(content, **dict(arrays))  # type: ignore[arg-type]
    return content.getvalue()
