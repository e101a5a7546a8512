"""Reads and writes reference voices: single arrays, and the named voices of a checkpoint.

No released checkpoint has such a file: preset speakers of a 25 Hz talker were never published, and
the official package has no way to decode them. A checkpoint made here keeps the features of each
of its speakers in `voices.npz`, beside the tokenizer's `config.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from qtts_jax.errors import CheckpointError, RequestError
from qtts_jax.io.atomic_files import npz_bytes, write_whole
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice

VOICES = "voices.npz"
PARTS = ("xvector", "ref_mel")


def read_array(path: Path, what: str) -> np.ndarray:
    """An array of a `.npy` file.

    Raises:
        RequestError: there is no such file, or it holds no array.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # header, zip and size faults all have types of their own
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise RequestError(f"cannot read {what} from {path}: {reason}.") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise RequestError(f"{path} holds several arrays; give {what} as a .npy file.")
    return array


def read_voices(directory: Path) -> dict[str, ReferenceVoice]:
    """The named voices of a tokenizer's folder; none if it has no `voices.npz`.

    Raises:
        CheckpointError: the file is damaged or one of its voices lacks an array.
    """
    path = directory / VOICES
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # zip, header and value faults all have types of their own
        raise CheckpointError(f"{path} is not a readable .npz file; write it again.") from error
    voices = {}
    for name in dict.fromkeys(key.rpartition(".")[0] for key in arrays):
        try:
            voices[name.lower()] = ReferenceVoice(*(arrays.pop(f"{name}.{p}") for p in PARTS))
        except KeyError as error:
            raise CheckpointError(
                f"{path} lacks the array {error}; a voice is NAME.xvector and NAME.ref_mel."
            ) from error
    if arrays:
        raise CheckpointError(
            f"{path} holds {', '.join(sorted(arrays))}, which belong to no voice; a voice is "
            "NAME.xvector and NAME.ref_mel."
        )
    return voices


def write_voices(directory: Path, voices: Mapping[str, ReferenceVoice]) -> None:
    """Write the named voices of a tokenizer's folder, replacing those that were there.

    Raises:
        QTTSError: the file cannot be written.
    """
    arrays = {
        f"{name.lower()}.{part}": np.asarray(getattr(voice, part), np.float32)
        for name, voice in voices.items()
        for part in PARTS
    }
    write_whole(directory / VOICES, npz_bytes(arrays))
