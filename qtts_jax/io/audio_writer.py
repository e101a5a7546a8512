"""Audio out: a waveform as one file, whole or chunk by chunk, and PCM for a player."""

import io
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from qtts_jax.errors import AudioError, QTTSError
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
    """Write a waveform as its chunks arrive.

    A `.wav` file is there from the first chunk on and is valid after every chunk: its header is
    rewritten each time, so a reader, or an interrupt, finds all samples so far. A `.npy` file is
    written whole at the end of the `with` block, and not at all if the block is left by an
    exception. The target is checked at once, before any time is spent on audio that could not be
    kept.

    Args:
        path: as of `save_audio`.
        sample_rate: Hz.

    Raises:
        AudioError, QTTSError: as `save_audio`.
    """

    def __init__(self, path: str | Path, sample_rate: int):
        self._path = _check_target(path)
        self._rate = check_rate(sample_rate, str(path))
        self._chunks: list[np.ndarray] = []
        self._file: BinaryIO | None = None
        self._samples = 0

    def write(self, chunk: Any) -> None:
        """Add a chunk [T] of any floating dtype."""
        samples = _check_wave(chunk)
        if self._path.suffix.lower() == ".npy":
            self._chunks.append(samples)
            return
        try:
            if self._file is None:
                self._file = open(self._path, "wb")  # noqa: SIM115 (closed by __exit__)
            self._samples += len(samples)
            # First the samples: bytes beyond the length that a header names are passed over.
            self._file.seek(0, 2)
            if self._file.tell() == 0:
                self._file.write(_float_header(0, self._rate))
            self._file.write(samples.astype("<f4").tobytes())
            self._file.seek(0)
            self._file.write(_float_header(self._samples, self._rate))
            self._file.flush()
        except OSError as error:
            raise QTTSError(f"cannot write {self._path}: {error}.") from error

    def __enter__(self) -> "AudioWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._file is not None:
            self._file.close()
        elif kind is None:
            wave = np.concatenate([np.zeros(0, np.float32), *self._chunks])
            save_audio(self._path, wave, self._rate)


class PcmWriter:
    """Write chunks to a binary stream as little-endian 16-bit PCM, for a player.

    Args:
        stream: standard output by default.
    """

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = sys.stdout.buffer if stream is None else stream

    def write(self, chunk: Any) -> None:
        """Write a chunk [T] of any floating dtype, clipped to [-1, 1]."""
        samples = np.clip(_check_wave(chunk), -1, 1)
        try:
            self._stream.write(np.round(samples * 32767).astype("<i2").tobytes())
            self._stream.flush()
        except OSError as error:
            raise QTTSError(f"cannot write to standard output: {error}.") from error

    def __enter__(self) -> "PcmWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is left to do."""


def _float_header(samples: int, rate: int) -> bytes:
    """The first 58 bytes of a mono WAV file of 32-bit floats (RIFF, fmt, fact, data)."""
    size = min(4 * samples, 2**32 - 1 - 50)
    form = struct.pack("<4sIHHIIHHH", b"fmt ", 18, 3, 1, rate, 4 * rate, 4, 32, 0)
    fact = struct.pack("<4sII", b"fact", 4, samples)
    head = struct.pack("<4sI4s", b"RIFF", 50 + size, b"WAVE")
    return head + form + fact + struct.pack("<4sI", b"data", size)


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
