"""Opus (RFC 6716) as a baseline: libopus through PyAV."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from qtts_jax.errors import EvaluationError
from qtts_jax.evaluation.judges.package import load
from qtts_jax.io.resample import resample

SAMPLE_RATE = 48_000  # of the codec; other rates are converted to it
LOWEST_BITS, HIGHEST_BITS = 500, 256_000
_PURPOSE = "the Opus baseline"


def check_bits(bits: int) -> None:
    """Raise an `EvaluationError` for what libopus does not do for one channel."""
    if not LOWEST_BITS <= bits <= HIGHEST_BITS:
        raise EvaluationError(
            f"Opus cannot take {bits} bits a second; name {LOWEST_BITS} to {HIGHEST_BITS}."
        )


def round_trip(wave: np.ndarray, sample_rate: int, bits: int) -> tuple[np.ndarray, float]:
    """Encode and decode a recording.

    The encoder's defaults hold: 20 ms packets, variable bit rate, complexity 10.

    Args:
        wave: [T] float32.
        sample_rate: Hz.
        bits: wanted a second.

    Returns:
        the decoded wave [T] at `sample_rate`, its delay taken out, and the bits a second that its
        packets really took, without a container.

    Raises:
        EvaluationError: `av` is not installed.
    """
    av = load("av", "av", _PURPOSE)
    full = resample(wave, sample_rate, SAMPLE_RATE)
    packets, header = _encode(av, full, bits)
    decoded = _decode(av, packets, header)
    back = resample(decoded, SAMPLE_RATE, sample_rate)
    back = np.pad(back[: len(wave)], (0, max(0, len(wave) - len(back))))
    return back, 8 * sum(map(len, packets)) / (len(wave) / sample_rate)


def _encode(av: Any, wave: np.ndarray, bits: int) -> tuple[list[bytes], bytes]:
    """Packets of a wave at 48 kHz, and the header with the decoder's delay."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE, "mono", "flt"
    encoder.bit_rate, encoder.time_base = bits, Fraction(1, SAMPLE_RATE)
    encoder.open()
    size = encoder.frame_size
    wave = np.pad(wave, (0, -len(wave) % size)).astype(np.float32)
    packets: list[bytes] = []
    for start in range(0, len(wave), size):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + size], "flt", "mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, encoder.time_base
        packets += map(bytes, encoder.encode(frame))
    packets += map(bytes, encoder.encode(None))  # what its delay has kept back
    return packets, bytes(encoder.extradata)


def _decode(av: Any, packets: list[bytes], header: bytes) -> np.ndarray:
    decoder = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout, decoder.extradata = SAMPLE_RATE, "mono", header
    decoder.open()
    packets_decoded = []
    for packet in packets:
        for frame in decoder.decode(av.Packet(packet)):
            samples = frame.to_ndarray().ravel()
            scale = 32768 if np.issubdtype(samples.dtype, np.integer) else 1
            packets_decoded.append(samples.astype(np.float32) / scale)
    return np.concatenate(packets_decoded)
