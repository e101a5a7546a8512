"""Fingerprints of results: what a line, the checkpoint and the options were when it was spoken."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qtts_jax.cli.batch.lines import Line
from qtts_jax.cli.batch.voice_cache import VoiceCache

# Fields that name files, whose contents count instead of their names.
_FILES = ("ref_audio", "xvector", "ref_mel")
# Larger files of a checkpoint (weights) count by name and size: the array store names each of its
# files at random when it writes it, so other weights have other names.
_SMALL = 1 << 20


class Fingerprints:
    """Computes the fingerprint of a line's result, 32 hexadecimal digits.

    Args:
        voices: finds the reference files of the lines, each of which is read once.
        settings: what else determines the audio (checkpoint, dtype, options), as JSON values.
    """

    def __init__(self, voices: VoiceCache, settings: Mapping[str, Any]) -> None:
        self._voices, self._settings = voices, dict(settings)
        self._contents: dict[str, str] = {}

    def __call__(self, line: Line) -> str:
        data = {name: value for name, value in line.data.items() if name != "id"}
        for field in _FILES:
            if name := data.get(field):
                if name not in self._contents:
                    self._contents[name] = _content(self._voices.path(name))
                data[field] = self._contents[name]
        text = json.dumps([data, self._settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def checkpoint_fingerprint(directory: Path) -> str:
    """The fingerprint of a converted checkpoint, the same for a copy of its folder.

    Configurations, vocabularies and indices of arrays count by content, the large files of arrays
    by name and size, so that no weights are read.
    """
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        if path.suffix == ".md" or name.name.startswith(".") or not path.is_file():
            continue
        size = path.stat().st_size
        content = hashlib.sha256(path.read_bytes()).hexdigest() if size <= _SMALL else ""
        digest.update(f"{name.as_posix()}\0{size}\0{content}\n".encode())
    return digest.hexdigest()[:32]


def _content(name: str) -> str:
    """The hash of a file's content; of the text itself where it is a URL, base64 or no file."""
    try:
        if Path(name).is_file():
            with open(name, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        pass  # base64 audio is no valid file name; an unreadable file is an error of its line
    return hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()
