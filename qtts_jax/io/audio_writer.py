"""Audio out: one waveform, or chunks of it, as one file that appears whole or not at all."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from qtts_jax.errors import AudioError
from qtts_jax.io.atomic_files import npy_bytes, write_whole
from qtts_jax.io.audio_checks import check_rate, is_float


def save_audio(path: str | Path, wave: Any, sample_rate: int) -> None:
    """Write a waveform whole or not at all.

    Args:
        path: `.wav` writes 32-bit float WAV; `.npy` writes the float32 array without its rate.
        wave: [T], any floating dtype.
        sample_rate: Hz.

    Raises:
        AudioError: unknown suffix, missing directory, a wave that is not [T].
        QTTSError: the file cannot be written, as on a full disk.
    """
    path, rate = _check_target(path), check_rate(sample_rate, str(path))
    samples = _check_wave(wave)
    if path.suffix.lower() == ".npy":
        write_whole(path, npy_bytes(samples))
    else:
        content = io.BytesIO()
        import soundfile

        soundfile.write(content, samples, rate, format="WAV", subtype="FLOAT")
        write_whole(path, content.getvalue())


class AudioWriter:
    """Write a waveform that arrives in chunks, as one file at the end of the `with` block.

    The target is checked at once, before any time is spent on audio that could not be kept. If the
    block is left by an exception, nothing is written.

    Args:
        path: as of `save_audio`.
        sample_rate: Hz.

    Raises:
        AudioError, QTTSError: as `save_audio`.
    """

    def __init__(self, path: str | Path, sample_rate: int):
        self._path = _check_target(path)
        self._rate = check_rate(sample_rate, str(path))
        self._chunks = [np.zeros(0, np.float32)]

    def write(self, chunk: Any) -> None:
        """Add a chunk [T] of any floating dtype."""
        self._chunks.append(_check_wave(chunk))

    def __enter__(self) -> "AudioWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            save_audio(self._path, np.concatenate(self._chunks), self._rate)


def _check_target(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix.lower() not in (".wav", ".npy"):
        raise AudioError(f"Cannot write audio to {path}: name it .wav or .npy.")
    if not path.parent.is_dir():
        raise AudioError(f"Cannot write {path}: the directory {path.parent} does not exist.")
    return path


def _check_wave(wave: Any) -> np.ndarray:
    samples = np.asarray(wave)
    if samples.ndim != 1 or not is_float(samples.dtype):
        raise AudioError(
            f"Audio to write must be floats of shape [T], got {samples.dtype} {samples.shape}."
        )
    return samples.astype(np.float32)
