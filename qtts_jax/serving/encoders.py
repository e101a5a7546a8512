"""Encodes audio while it is made: each format as an object that turns samples into bytes."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from qtts_jax.errors import RequestError

# The size fields of a WAV header whose length is not known yet.
UNKNOWN_SIZE = 0xFFFFFFFF


class Encoder(ABC):
    """Encodes one utterance; `encode` for every chunk, then `finish` once.

    Args:
        sample_rate: Hz.
    """

    media_type: str

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    @abstractmethod
    def encode(self, wave: np.ndarray) -> bytes:
        """Bytes that are ready after the samples float32 [n] in [-1, 1]; there may be none."""

    @abstractmethod
    def finish(self) -> bytes:
        """The bytes that were held back."""


class PCM(Encoder):
    """16-bit little-endian samples without a header."""

    media_type = "audio/pcm"

    def encode(self, wave: np.ndarray) -> bytes:
        """See `Encoder`."""
        return pcm16(wave).tobytes()

    def finish(self) -> bytes:
        """Nothing."""
        return b""


class WAV(PCM):
    """16-bit WAV: one header in front of the first samples, with sizes that say "unknown"."""

    media_type = "audio/wav"

    def __init__(self, sample_rate: int) -> None:
        super().__init__(sample_rate)
        self._header = wav_header(sample_rate)

    def encode(self, wave: np.ndarray) -> bytes:
        """See `Encoder`."""
        header, self._header = self._header, b""
        return header + super().encode(wave)

    def finish(self) -> bytes:
        """The header, if there was no audio at all."""
        return self._header


class _Sink:
    """What a PyAV container has written since the last `take`; it cannot seek, as no stream can."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Keep bytes."""
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """The bytes so far, each once."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


class Compressed(Encoder):
    """A format of FFmpeg, by PyAV.

    Args:
        sample_rate: Hz.
        container, codec: FFmpeg's names.
        options: of the container.
    """

    def __init__(
        self, sample_rate: int, container: str, codec: str, options: dict[str, str]
    ) -> None:
        super().__init__(sample_rate)
        import av

        self._sink = _Sink()
        self._container: Any = av.open(
            self._sink, mode="w", format=container, container_options=options
        )
        self._stream: Any = self._container.add_stream(codec, rate=sample_rate, layout="mono")
        self._frame, self._position = av.AudioFrame, 0

    def encode(self, wave: np.ndarray) -> bytes:
        """See `Encoder`."""
        if not len(wave):
            return b""
        frame = self._frame.from_ndarray(pcm16(wave)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = self.sample_rate, self._position
        self._position += len(wave)
        self._container.mux(self._stream.encode(frame))
        return self._sink.take()

    def finish(self) -> bytes:
        """The last packets and the end of the container, which is written when it is closed."""
        if self._position:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._sink.take()


class MP3(Compressed):
    """MP3 without tags, whose lengths would not be known."""

    media_type = "audio/mpeg"

    def __init__(self, sample_rate: int) -> None:
        super().__init__(
            sample_rate, "mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"}
        )


class Opus(Compressed):
    """Opus in Ogg, one page for every 20 ms of audio, so that a client gets it at once."""

    media_type = "audio/ogg"

    def __init__(self, sample_rate: int) -> None:
        super().__init__(sample_rate, "ogg", "libopus", {"page_duration": "20000"})


class FLAC(Compressed):
    """FLAC, 16 bits."""

    media_type = "audio/flac"

    def __init__(self, sample_rate: int) -> None:
        super().__init__(sample_rate, "flac", "flac", {})


class AAC(Compressed):
    """AAC in ADTS frames."""

    media_type = "audio/aac"

    def __init__(self, sample_rate: int) -> None:
        super().__init__(sample_rate, "adts", "aac", {})


FORMATS: dict[str, type[Encoder]] = {
    "pcm": PCM,
    "wav": WAV,
    "mp3": MP3,
    "opus": Opus,
    "flac": FLAC,
    "aac": AAC,
}


def encoder(name: str, sample_rate: int) -> Encoder:
    """An encoder of a format of `FORMATS`.

    Raises:
        RequestError: no such format.
    """
    if name not in FORMATS:
        raise RequestError(
            f"unknown response_format {name!r}; choose one of: {', '.join(FORMATS)}."
        )
    return FORMATS[name](sample_rate)


def pcm16(wave: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] as little-endian int16, clipped."""
    return np.clip(np.rint(wave * 32767.0), -32768, 32767).astype("<i2")


def wav_header(sample_rate: int, samples: int | None = None) -> bytes:
    """The 44 bytes in front of 16-bit mono samples; their number None means unknown."""
    size = UNKNOWN_SIZE if samples is None else 2 * samples
    whole = UNKNOWN_SIZE if samples is None else 36 + size
    form = (16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", whole, b"WAVE")
        + struct.pack("<4sIHHIIHH", b"fmt ", *form)
        + struct.pack("<4sI", b"data", size)
    )
