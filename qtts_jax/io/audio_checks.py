"""What an array of samples must be to be read or written: its type, shape, rate and level."""

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


def checked_recording(samples: Any, rate: Any, name: str) -> tuple[np.ndarray, int]:
    """Samples of any kind as a waveform that a model can use.

    Args:
        samples: [T] or [T, C], floats or integer PCM (uint8, int16, int32).
        rate: their rate.

    Returns:
        float32 [T], the mean of the channels, and the rate in Hz.

    Raises:
        AudioError: samples of a wrong shape or type or a wrong rate; they are empty, NaN or
            infinite, of an absurd level, or channels that cancel each other.
    """
    wave, rate = _mono(samples, name), check_rate(rate, name)
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
    return np.ascontiguousarray(wave), rate


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
    elif not is_float(array.dtype):
        raise AudioError(
            f"{name} must be floats or integer PCM (uint8, int16, int32), got {array.dtype}."
        )
    if array.ndim == 2:
        array = mix(array, name)
    return array.astype(np.float32)


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
