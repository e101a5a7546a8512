"""The JSON files of a checkpoint folder; apart from `checkpoint.py`, which is slow to import."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from qtts_jax.errors import CheckpointError

CONFIG = "config.json"
# The folder of the weights in a converted checkpoint.
PARAMS = "params"
# In every folder that this package writes whole; only such a folder is ever overwritten.
MARKER = "qtts_jax.json"
_TORCH_FILES = ("*.safetensors*", "pytorch_model*", "speech_tokenizer/*.safetensors*")


def read_config(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The `config.json` of a checkpoint folder.

    Raises:
        CheckpointError: there is no such folder or file, or the file is not a JSON object.
    """
    path = Path(directory) / CONFIG
    if not path.parent.exists():
        raise CheckpointError(f"{directory} is not a checkpoint folder: there is no such folder.")
    if not path.is_file():
        raise CheckpointError(f"{directory} is not a checkpoint folder: it has no {CONFIG}.")
    return read_json(path)


def check_converted(folder: Path) -> None:
    """Refuse a torch checkpoint, a whole one or a speech tokenizer alone.

    Raises:
        CheckpointError: it is one; the message has the convert command.
    """
    torch = (path for pattern in _TORCH_FILES for path in folder.glob(pattern))
    if not (folder / PARAMS).is_dir() and any(torch):
        raise CheckpointError(
            f"{folder} is a torch checkpoint; convert it first with `python -m convert {folder} "
            "DESTINATION` and use DESTINATION."
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: the file cannot be read or holds something else.
    """
    try:
        # Some editors and tools put a byte order mark in front.
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object.")
    return content
