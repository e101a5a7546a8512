"""Encoded audio (files, bytes, base64) as samples at the rate of the recording.

libsndfile decodes the formats that it supports, PyAV (optional) all others.
"""

import base64
import binascii
import io
from pathlib import Path

import numpy as np

from qtts_jax.errors import AudioError
from qtts_jax.io.audio_checks import mix

KNOWN = "WAV, FLAC, Ogg Vorbis or Opus, MP3, AIFF, AU, CAF, M4A, AAC, WebM, WMA or AMR"


def decode_file(path: Path, name: str) -> tuple[np.ndarray, int]:
    """Samples [T] float32 of a file, channels averaged, and its rate.

    Raises:
        AudioError: no regular file, an empty one, or one that is not audio.
    """
    shown = f"{name} cannot be read: {str(path)!r}"
    if path.is_dir():
        raise AudioError(f"{shown} is a folder, no file: name the recording in it.")
    try:
        found, regular = path.exists(), path.is_file()
    except ValueError:  # a NUL in the name
        found = regular = False
    if found and not regular:
        raise AudioError(f"{shown} is a pipe or a device: give the bytes that it holds.")
    if not regular:
        raise AudioError(f"{name} cannot be read: there is no file {str(path)!r}.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AudioError(f"{shown} cannot be opened: {error.strerror}.") from error
    if not content:
        raise AudioError(f"{shown} is an empty file.")
    return decode_bytes(content, name, repr(str(path)))


def decode_base64(text: str, name: str) -> tuple[np.ndarray, int]:
    """As `decode_bytes`, of base64."""
    try:
        encoded = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise AudioError(f"{name} is not valid base64: {error}.") from error
    return decode_bytes(encoded, name, "base64")


def decode_bytes(encoded: bytes, name: str, origin: str) -> tuple[np.ndarray, int]:
    """Samples [T] float32 of an audio file in memory, channels averaged, and its rate.

    Args:
        name, origin: what messages call the audio, and where it comes from.

    Raises:
        AudioError: it is not audio, or needs PyAV, which is not installed.
    """
    import soundfile

    try:
        wave, rate = soundfile.read(io.BytesIO(encoded), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        wave, rate = _decode_with_av(encoded, name, origin, error)
    return mix(wave, name), rate


def _decode_with_av(
    encoded: bytes, name: str, origin: str, error: Exception
) -> tuple[np.ndarray, int]:
    """Samples [T, C] float32 and rate, by FFmpeg's decoders."""
    unknown = f"{name} cannot be read: {origin} is not audio in a known format (give {KNOWN})."
    try:
        import av
    except ImportError:
        if _needs_av(encoded):
            raise AudioError(
                f"{name} cannot be read: {origin} is compressed in a way that needs PyAV: pip "
                "install 'qtts_jax[audio]', or convert it to WAV."
            ) from error
        raise AudioError(unknown) from error
    try:
        with av.open(io.BytesIO(encoded), "r") as container:
            stream = container.streams.audio[0]
            to_float = av.AudioResampler(format="fltp")
            frames = [f for frame in container.decode(stream) for f in to_float.resample(frame)]
            frames += to_float.resample(None)
            rate = stream.codec_context.sample_rate
            return np.concatenate([f.to_ndarray() for f in frames], axis=1).T, rate
    except (av.FFmpegError, IndexError, ValueError) as fault:
        raise AudioError(unknown) from fault


def _needs_av(encoded: bytes) -> bool:
    """Whether this looks like MP4, AAC, Matroska, ASF or AMR."""
    starts = (b"\xff\xf1", b"\xff\xf9", b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75", b"#!AMR")
    return encoded[4:8] == b"ftyp" or encoded.startswith(starts)
