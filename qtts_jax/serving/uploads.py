"""Checks recordings that clients send, before they are decoded whole."""

from __future__ import annotations

import base64
import binascii
import io

from qtts_jax.errors import AudioError


def decode_base64(text: str, most_bytes: int) -> bytes:
    """The bytes of base64 text or of a `data:` URL; nothing else is read, no path and no URL.

    Raises:
        AudioError: no base64, or too large.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    if len(text) > most_bytes * 4 / 3 + 4:
        raise AudioError(f"ref_audio is larger than the {most_bytes} bytes that are allowed.")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AudioError(
            "ref_audio must be base64 of an audio file; paths and URLs are not read."
        ) from error


def check_recording(content: bytes, most_bytes: int, most_seconds: float) -> None:
    """Check size and duration, decoding no more than is allowed.

    Raises:
        AudioError: too large, too long, or no audio.
    """
    if len(content) > most_bytes:
        raise AudioError(
            f"the recording has {len(content)} bytes, at most {most_bytes} are allowed; cut it."
        )
    import av

    try:
        with av.open(io.BytesIO(content), mode="r") as container:
            seconds = 0.0
            for frame in container.decode(audio=0):
                seconds += frame.samples / frame.sample_rate
                if seconds > most_seconds:
                    break
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise AudioError("the recording is not audio in a known format.") from error
    if seconds > most_seconds:
        raise AudioError(
            f"the recording is longer than the {most_seconds:g} seconds that are allowed; cut it."
        )
