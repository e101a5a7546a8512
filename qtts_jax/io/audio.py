"""Audio in (path, URL, bytes, base64, array) as mono float32 at a wanted rate; audio out.

Upstream: `Qwen3TTSModel._load_audio_to_np` and `Qwen3TTSTokenizer.load_audio`, which decode alike:
a path by `librosa.load` (channels averaged), everything encoded by `soundfile` and a mean over
channels, then `librosa.resample` (soxr, high quality) when the rates differ. Both are followed to
the bit. What differs on purpose:

- Base64 is told from a path by whether the file exists and by its alphabet. Upstream calls any
  string with a slash a path, which most long base64 strings have.
- Integer arrays are PCM and are scaled to [-1, 1). Upstream casts them unscaled.
- A 2-D array is [T, C] and is averaged over C, as `Qwen3TTSTokenizer` does; `Qwen3TTSModel` stops
  with a TypeError there. [C, T] is refused with a hint rather than averaged over time.
"""

import base64
import binascii
import http.client
import io
import os
import re
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from qtts_jax.errors import AudioError
from qtts_jax.io.atomic_files import npy_bytes, write_whole

AudioSource = str | Path | bytes | tuple[Any, int]

_RATES = (1_000, 768_000)
_DOWNLOAD_SECONDS = 60
# Shorter strings cannot hold useful audio, so they are taken for (missing) paths.
_BASE64_MIN_CHARS = 256
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+=*\s*")


def load_audio(
    source: AudioSource,
    sample_rate: int,
    *,
    min_samples: int = 1,
    name: str = "audio",
    allow_url: bool = True,
) -> np.ndarray:
    """Read audio from anywhere as one mono waveform.

    Args:
        source: path of an audio file; http(s) URL; `data:` URL or plain base64 of an audio file;
            bytes of an audio file; or `(array, rate)` with array [T] or [T, C], float or integer
            PCM (uint8, int16, int32).
        sample_rate: rate wanted, Hz.
        min_samples: least samples wanted at that rate.
        name: what to call this audio in an error.
        allow_url: False refuses URLs, for a server that must not fetch what a client names.

    Returns:
        float32 [T] at `sample_rate`; not clipped and not normalised.

    Raises:
        AudioError: unreadable, empty, too short, NaN or infinite, of a wrong shape or rate.
    """
    wave, rate = read_audio(source, name=name, allow_url=allow_url)
    if rate != sample_rate:
        wave = resample(wave, rate, sample_rate)
    if wave.size < min_samples:
        raise AudioError(
            f"{name} is too short: {wave.size} samples ({wave.size / sample_rate:.3f} s) at "
            f"{sample_rate} Hz, at least {min_samples} ({min_samples / sample_rate:.3f} s) are "
            "needed."
        )
    return np.ascontiguousarray(wave, dtype=np.float32)


def read_audio(
    source: AudioSource, *, name: str = "audio", allow_url: bool = True
) -> tuple[np.ndarray, int]:
    """As `load_audio`, at the rate that the source has: (float32 [T], rate in Hz)."""
    wave, rate = _read(source, name, allow_url)
    rate = _check_rate(rate, name)
    if wave.size == 0:
        raise AudioError(f"{name} is empty: give audio of at least one frame (0.08 s).")
    if not np.isfinite(wave).all():
        raise AudioError(f"{name} holds NaN or infinite samples: repair the recording first.")
    return np.ascontiguousarray(wave, dtype=np.float32), rate


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
    path, rate = _check_target(path), _check_rate(sample_rate, str(path))
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
        self._rate = _check_rate(sample_rate, str(path))
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
    if samples.ndim != 1 or not _is_float(samples.dtype):
        raise AudioError(
            f"Audio to write must be floats of shape [T], got {samples.dtype} {samples.shape}."
        )
    return samples.astype(np.float32)


def _read(source: Any, name: str, allow_url: bool) -> tuple[np.ndarray, Any]:
    """Decode any source to (float [T], its rate)."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), name, "bytes")
    if isinstance(source, Path):
        return _read_file(source, name)
    if isinstance(source, str):
        return _read_string(source, name, allow_url)
    if isinstance(source, tuple) and len(source) == 2:
        return _mono(source[0], name), source[1]
    raise AudioError(
        f"{name} must be a path, bytes, a base64 string or an (array, rate) pair, got "
        f"{type(source).__name__}."
    )


def _read_string(source: str, name: str, allow_url: bool) -> tuple[np.ndarray, Any]:
    if source.lower().startswith(("http://", "https://")):
        if not allow_url:
            raise AudioError(f"{name} is a URL, which is not accepted here: send the audio itself.")
        return _decode(_download(source, name), name, "the answer of its URL")
    if source.startswith("data:"):
        return _decode_base64(source.partition(",")[2], name)
    if os.path.exists(source):
        return _read_file(Path(source), name)
    if len(source) > _BASE64_MIN_CHARS and _BASE64.fullmatch(source):
        return _decode_base64(source, name)
    shown = source if len(source) <= 120 else source[:117] + "..."
    raise AudioError(f"{name} cannot be read: there is no file {shown!r}.")


def resample(wave: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Mono float32 audio [T] at another rate, [ceil(T * target / rate)].

    The samples are those of `librosa.resample` with its default, SoX's high quality, without
    librosa and the compiler it imports.
    """
    import soxr

    out = soxr.resample(wave, rate, target, quality="soxr_hq")
    length = int(np.ceil(len(wave) * (target / rate)))
    return np.pad(out[:length], (0, max(length - len(out), 0))).astype(np.float32)


def _read_file(path: Path, name: str) -> tuple[np.ndarray, Any]:
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


def _download(url: str, name: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_DOWNLOAD_SECONDS) as response:
            return response.read()
    except (OSError, ValueError, urllib.error.URLError, http.client.HTTPException) as error:
        raise AudioError(f"{name} cannot be fetched from {url}: {error}.") from error


def _decode_base64(text: str, name: str) -> tuple[np.ndarray, Any]:
    try:
        encoded = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise AudioError(f"{name} is not valid base64: {error}.") from error
    return _decode(encoded, name, "base64")


def _decode(encoded: bytes, name: str, origin: str) -> tuple[np.ndarray, Any]:
    import soundfile

    try:
        wave, rate = soundfile.read(io.BytesIO(encoded), dtype="float32", always_2d=False)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise AudioError(
            f"{name} cannot be read: {origin} is not audio in a known format."
        ) from error
    return (np.mean(wave, axis=-1) if wave.ndim > 1 else wave), rate


def _mono(samples: Any, name: str) -> np.ndarray:
    """Array [T] or [T, C], float or PCM, to float32 [T]."""
    try:
        array = np.asarray(samples)
    except ValueError as error:  # a ragged list
        raise AudioError(f"{name} must be an array of shape [T] or [T, C].") from error
    if array.ndim not in (1, 2):
        raise AudioError(f"{name} must have shape [T] or [T, C], got {array.shape}.")
    if array.size == 0:
        return np.zeros(0, np.float32)
    if array.ndim == 2 and array.shape[1] > array.shape[0]:
        raise AudioError(
            f"{name} of shape {array.shape} has more channels than samples: transpose it to [T, C]."
        )
    if array.dtype == np.uint8:
        array = (array.astype(np.float32) - 128) / 128
    elif array.dtype in (np.int16, np.int32):
        array = array.astype(np.float64) / -float(np.iinfo(array.dtype).min)
    elif not _is_float(array.dtype):
        raise AudioError(
            f"{name} must be floats or integer PCM (uint8, int16, int32), got {array.dtype}."
        )
    if array.ndim == 2:
        array = np.mean(array, axis=-1)
    return array.astype(np.float32)


def _is_float(dtype: np.dtype) -> bool:
    # bfloat16 arrays, as a model may give, are no np.floating.
    return np.issubdtype(dtype, np.floating) or dtype.name == "bfloat16"


def _check_rate(rate: Any, name: str) -> int:
    low, high = _RATES
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.integer, np.floating)):
        raise AudioError(f"The sample rate of {name} must be a number in Hz, got {rate!r}.")
    if not low <= rate <= high or rate != int(rate):
        raise AudioError(
            f"The sample rate of {name} must be a whole number from {low} to {high} Hz, "
            f"got {rate!r}."
        )
    return int(rate)
