"""Encoded audio (files, bytes, base64) as samples at the rate of the recording."""

import base64
import binascii
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from qtts_jax.errors import AudioError


def decode_file(path: Path, name: str) -> tuple[np.ndarray, Any]:
    if not path.is_file():
        raise AudioError(f"{name} cannot be read: there is no file {str(path)!r}.")
    if path.stat().st_size == 0:
        raise AudioError(f"{name} cannot be read: {str(path)!r} is an empty file.")
    import librosa

    try:
        with warnings.catch_warnings():
            # librosa announces its second decoder; the outcome alone matters here.
            warnings.simplefilter("ignore")
            return librosa.load(path, sr=None, mono=True)
    except Exception as error:  # each of its decoders has its own exception types
        raise AudioError(
            f"{name} cannot be read: {str(path)!r} is not audio in a known format."
        ) from error


def decode_base64(text: str, name: str) -> tuple[np.ndarray, Any]:
    try:
        encoded = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise AudioError(f"{name} is not valid base64: {error}.") from error
    return decode_bytes(encoded, name, "base64")


def decode_bytes(encoded: bytes, name: str, origin: str) -> tuple[np.ndarray, Any]:
    import soundfile

    try:
        wave, rate = soundfile.read(io.BytesIO(encoded), dtype="float32", always_2d=False)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise AudioError(
            f"{name} cannot be read: {origin} is not audio in a known format."
        ) from error
    return (np.mean(wave, axis=-1) if wave.ndim > 1 else wave), rate
