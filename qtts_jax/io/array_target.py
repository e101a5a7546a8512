"""Check of the file that an array is written to, before time is spent on the array."""

import os
from pathlib import Path
from typing import Any

from qtts_jax.errors import QTTSError

# fmt: off
_AUDIO_SUFFIXES = frozenset([
    ".aac", ".aif", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka", ".mkv",
    ".mov", ".mp2", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".rf64", ".snd", ".w64", ".wav",
    ".wave", ".weba", ".webm", ".wma", ".wv",
])
# fmt: on


def check_array_target(target: str | Path, source: Any = None) -> Path:
    """The path of a `.npy` file to write.

    Args:
        target: where the array is to be written.
        source: the recording that it is computed from.

    Raises:
        QTTSError: the target is the source, a folder, or has the suffix of an audio file.
    """
    path = Path(target)
    if isinstance(source, str | os.PathLike) and _same_file(path, Path(source)):
        raise QTTSError(f"{path} is the recording to read and would be lost; name another target.")
    if path.is_dir():
        raise QTTSError(f"{path} is a folder; name the .npy file to write in it.")
    if path.suffix.lower() in _AUDIO_SUFFIXES:
        raise QTTSError(
            f"{path} has the name of an audio file, but an array is written; name it .npy."
        )
    return path


def _same_file(a: Path, b: Path) -> bool:
    """Whether both paths lead to one file, by a link or another spelling too."""
    try:
        return a.resolve() == b.resolve() or os.path.samefile(a, b)
    except (OSError, ValueError):
        return False
