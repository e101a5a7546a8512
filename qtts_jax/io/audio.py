"""Audio in (path, URL, bytes, base64, array) as mono float32 at a wanted rate.

Upstream: `Qwen3TTSModel._load_audio_to_np` and `Qwen3TTSTokenizer.load_audio`, which decode alike:
a path by `librosa.load` (libsndfile, channels averaged), everything encoded by `soundfile` and a
mean over channels, then `librosa.resample` (soxr, high quality) when the rates differ. Both are
followed to the bit. What differs on purpose:

- A string is base64 if no file has its name and its letters are those of base64. Upstream takes
  any string with a slash for a path, which most long base64 strings have.
- Integer arrays are PCM and are scaled to [-1, 1). Upstream casts them unscaled.
- A 2-D array is [T, C] and is averaged over C, as `Qwen3TTSTokenizer` does; `Qwen3TTSModel` stops
  with a TypeError there. [C, T] is refused with a hint rather than averaged over time.
"""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qtts_jax.errors import AudioError
from qtts_jax.io.audio_checks import check_audible, checked_recording
from qtts_jax.io.audio_decode import decode_base64, decode_bytes, decode_file
from qtts_jax.io.download import download
from qtts_jax.io.resample import resample

AudioSource = str | Path | bytes | tuple[Any, int]


class Recording(NamedTuple):
    """An audio source that `read_audio` has read and checked: float32 [T], and its rate in Hz."""

    wave: np.ndarray
    rate: int


# Shorter strings cannot hold useful audio, so they are taken for (missing) paths.
_BASE64_MIN_CHARS = 256
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+=*\s*")


def load_audio(
    source: AudioSource,
    sample_rate: int,
    *,
    min_samples: int = 1,
    name: str = "audio",
    allow_url: bool = False,
    audible: bool = False,
) -> np.ndarray:
    """Read audio from anywhere as one mono waveform.

    Args:
        source: path of an audio file; http(s) URL; `data:` URL or plain base64 of an audio file;
            bytes of an audio file; or `(array, rate)` with array [T] or [T, C], float or integer
            PCM (uint8, int16, int32). A `Recording` is not checked again.
        sample_rate: rate wanted, Hz.
        min_samples: least samples wanted at that rate.
        name: what to call this audio in an error.
        allow_url: fetch the audio of a URL. Off by default: who names a URL makes this machine
            connect to it.
        audible: refuse silence, from which no voice can be taken.

    Returns:
        float32 [T] at `sample_rate`; not clipped and not normalised.

    Raises:
        AudioError: unreadable, empty, too short, NaN or infinite, of a wrong shape or rate, of an
            absurd level, channels that cancel each other, a URL without `allow_url`.
    """
    if isinstance(source, Recording):
        wave, rate = source
    else:
        wave, rate = read_audio(source, name=name, allow_url=allow_url)
    if rate != sample_rate:
        wave = resample(wave, rate, sample_rate)
    if wave.size < min_samples:
        raise AudioError(
            f"{name} is too short: {wave.size} samples ({wave.size / sample_rate:.3f} s) at "
            f"{sample_rate} Hz, at least {min_samples} ({min_samples / sample_rate:.3f} s) are "
            "needed."
        )
    if audible:
        check_audible(wave, name)
    return np.ascontiguousarray(wave, dtype=np.float32)


def read_audio(source: AudioSource, *, name: str = "audio", allow_url: bool = False) -> Recording:
    """As `load_audio`, at the rate that the source has."""
    return Recording(*checked_recording(*_read(source, name, allow_url), name))


def _read(source: Any, name: str, allow_url: bool) -> tuple[Any, Any]:
    """Any source as samples, decoded but not yet checked, and their rate."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return decode_bytes(bytes(source), name, "bytes")
    if isinstance(source, Path):
        return decode_file(source, name)
    if isinstance(source, str):
        return _read_string(source, name, allow_url)
    if isinstance(source, tuple) and len(source) == 2:
        return source[0], source[1]
    kind = type(source).__name__
    if callable(getattr(source, "read", None)):
        raise AudioError(f"{name} is a file object ({kind}): give the bytes that it holds.")
    missing = "is missing: it " if source is None else ""
    raise AudioError(
        f"{name} {missing}must be a path, bytes, a base64 string or an (array, rate) pair, got "
        f"{kind}."
    )


def fetch_url(source: Any, allow_url: bool, name: str = "audio") -> Any:
    """A source with the bytes of its URL in place of the URL, if URLs are allowed.

    Raises:
        AudioError: see `download`.
    """
    return download(source, name) if allow_url and _is_url(source) else source


def _is_url(source: Any) -> bool:
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def _read_string(source: str, name: str, allow_url: bool) -> tuple[np.ndarray, Any]:
    if _is_url(source):
        if not allow_url:
            raise AudioError(
                f"{name} is a URL, which is not accepted here: give the audio itself, or allow "
                "URLs (`allow_url=True`, `--allow-url`)."
            )
        return decode_bytes(download(source, name), name, "the answer of its URL")
    if source.startswith("data:"):
        return decode_base64(source.partition(",")[2], name)
    if os.path.exists(source):
        return decode_file(Path(source), name)
    if len(source) > _BASE64_MIN_CHARS and _BASE64.fullmatch(source):
        return decode_base64(source, name)
    shown = source if len(source) <= 120 else source[:117] + "..."
    raise AudioError(f"{name} cannot be read: there is no file {shown!r}.")
