"""Files that appear whole or not at all."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from qtts_jax.errors import QTTSError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its target and rename it, so that no reader ever sees a part of it.

    Raises:
        QTTSError: the directory does not exist, the disk is full, or writing is not allowed.
    """
    if not path.parent.is_dir():
        raise QTTSError(
            f"cannot write {path}: the directory {path.parent} does not exist; create it first."
        )
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:
            file.write(content)
        os.replace(partial, path)
    except OSError as error:
        raise QTTSError(f"cannot write {path}: {error}.") from error
    finally:
        partial.unlink(missing_ok=True)


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
