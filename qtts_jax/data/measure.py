"""Median fundamental frequency and speaking rate of a recording, without a model."""

from __future__ import annotations

import numpy as np

# Analysis frames and the step between them, seconds.
_FRAME, _HOP = 0.04, 0.02
_LOWEST, _HIGHEST = 60.0, 400.0
# Least normalised autocorrelation at the pitch period of a voiced frame.
_VOICED = 0.5
# The period is the shortest lag whose peak is at least this part of the highest (no octave errors).
_NEARLY = 0.9
# Frames quieter than the loudest by this many decibels are pauses.
_PAUSE_DB = 40.0


def median_pitch(wave: np.ndarray, sample_rate: int) -> float | None:
    """Median fundamental frequency of the voiced frames, Hz; None where none is voiced.

    Normalised autocorrelation of frames of 40 ms; the bias of its window is divided out
    (Boersma 1993, "Accurate short-term analysis of the fundamental frequency").

    Args:
        wave: [T] float or int16.
    """
    frames = _frames(wave, sample_rate)
    frames = frames[_loud(frames)]
    if not len(frames):
        return None
    frames = frames - frames.mean(axis=1, keepdims=True)
    window = np.hanning(frames.shape[1] + 2)[1:-1].astype(np.float32)
    first, last = int(sample_rate / _HIGHEST), int(np.ceil(sample_rate / _LOWEST))
    likeness = _correlation(frames * window) / _correlation(window[None])
    inner = likeness[:, first : last + 1]
    peaks = np.zeros_like(inner, bool)
    peaks[:, 1:-1] = (inner[:, 1:-1] >= inner[:, :-2]) & (inner[:, 1:-1] > inner[:, 2:])
    heights = np.where(peaks, inner, 0)
    best = heights.max(axis=1)
    lags = first + np.argmax(heights >= _NEARLY * best[:, None], axis=1)
    lags = lags[best > _VOICED]
    return float(np.median(sample_rate / lags)) if len(lags) else None


def speaking_rate(wave: np.ndarray, sample_rate: int, text: str) -> float:
    """Letters and digits of the text per second of speech, pauses excluded."""
    spoken = _HOP * max(int(_loud(_frames(wave, sample_rate)).sum()), 1)
    return sum(c.isalnum() for c in text) / spoken


def _frames(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """[frames, samples] float32, at least one frame."""
    size, hop = round(_FRAME * sample_rate), round(_HOP * sample_rate)
    wave = np.pad(wave.astype(np.float32), (0, max(size - len(wave), 0)))
    return np.lib.stride_tricks.sliding_window_view(wave, size)[::hop]


def _loud(frames: np.ndarray) -> np.ndarray:
    """Which frames [N] are loud enough to be speech: bool."""
    power = np.mean(np.square(frames), axis=1)
    return (power > power.max() * 10 ** (-_PAUSE_DB / 10)) & (power > 0)


def _correlation(frames: np.ndarray) -> np.ndarray:
    """Autocorrelation [frames, lags] of each row, 1 at lag 0."""
    size = frames.shape[1]
    spectrum = np.fft.rfft(frames, 1 << (2 * size - 1).bit_length(), axis=1)
    out = np.fft.irfft(np.square(spectrum.real) + np.square(spectrum.imag), axis=1)[:, :size]
    return out / np.maximum(out[:, :1], 1e-20)
