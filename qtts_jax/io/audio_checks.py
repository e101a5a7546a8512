"""Checks of sample rates, sample types and levels that reading and writing audio share."""

from typing import Any

import numpy as np

from qtts_jax.errors import AudioError

_RATES = (1_000, 768_000)
# Unscaled 16-bit PCM in floats is beyond it.
_MAX_PEAK = 1_000.0
# Under the last bit but one of 16-bit PCM.
_SILENT_PEAK = 5e-5
# Channels whose mean is this much lower than themselves cancel each other.
_CANCELLED = 1e-3


def is_float(dtype: np.dtype) -> bool:
    """Whether samples of this dtype are floating-point numbers."""
    # bfloat16 arrays, as a model may give, are no np.floating.
    return np.issubdtype(dtype, np.floating) or dtype.name == "bfloat16"


def check_rate(rate: Any, name: str) -> int:
    """A sample rate as an integer.

    Raises:
        AudioError: no whole number of Hz, or one that no recording has.
    """
    low, high = _RATES
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.integer, np.floating)):
        raise AudioError(f"The sample rate of {name} must be a number in Hz, got {rate!r}.")
    if not low <= rate <= high or rate != int(rate):
        raise AudioError(
            f"The sample rate of {name} must be a whole number from {low} to {high} Hz, "
            f"got {rate!r}."
        )
    return int(rate)


def mix(channels: np.ndarray, name: str) -> np.ndarray:
    """The mean [T] of channels [T, C].

    Raises:
        AudioError: the channels cancel each other.
    """
    mono = np.mean(channels, axis=-1)
    if channels.shape[-1] > 1 and mono.size:
        peak, mixed = np.abs(channels).max(), np.abs(mono).max()
        if peak > _SILENT_PEAK and mixed < _CANCELLED * peak:
            raise AudioError(
                f"{name} has channels in opposite phase, which cancel each other in mono: give one "
                "of the channels."
            )
    return mono


def check_samples(wave: np.ndarray, name: str) -> None:
    """Refuse a waveform [T] that no model can use.

    Raises:
        AudioError: it is empty, holds NaN or infinite samples, or its level is absurd.
    """
    if wave.size == 0:
        raise AudioError(f"{name} is empty: give audio of at least one frame (0.08 s).")
    if not np.isfinite(wave).all():
        raise AudioError(f"{name} holds NaN or infinite samples: repair the recording first.")
    peak = float(np.abs(wave).max())
    if peak > _MAX_PEAK:
        raise AudioError(
            f"{name} has samples up to {peak:.3g}, far beyond full scale: give floats from -1 to 1 "
            "or integer PCM."
        )


def check_audible(wave: np.ndarray, name: str) -> None:
    """Refuse a waveform [T] without any sound.

    Raises:
        AudioError: it is silent.
    """
    peak = float(np.abs(wave).max())
    if peak < _SILENT_PEAK:
        raise AudioError(
            f"{name} is silent (peak {peak:.1g}): give a recording with a voice in it."
        )
