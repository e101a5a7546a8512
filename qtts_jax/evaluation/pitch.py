"""Fundamental frequency and what differs of it between two recordings.

Tracked by probabilistic YIN (Mauch and Dixon 2014), 100 frames a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LOWEST, HIGHEST = 55.0, 500.0  # Hz
_HOP_SECONDS, _FRAME_SECONDS = 0.01, 0.064


@dataclass(frozen=True)
class PitchErrors:
    """Differences of two tracks of the same words at the same time.

    Attributes:
        cents: root mean square difference, 1/100 semitones, over the frames voiced in both; None
            if there is none.
        voicing: share of frames that are voiced in one only.
    """

    cents: float | None
    voicing: float


def track(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """Pitch in Hz [frames] of a wave [T], NaN where there is no voice."""
    import librosa

    frame = round(_FRAME_SECONDS * sample_rate)
    if len(wave) < frame:
        return np.full(1, np.nan)
    pitch, _, _ = librosa.pyin(
        wave,
        fmin=LOWEST,
        fmax=HIGHEST,
        sr=sample_rate,
        frame_length=frame,
        hop_length=round(_HOP_SECONDS * sample_rate),
    )
    return pitch


def compare(pitch: np.ndarray, other: np.ndarray) -> PitchErrors:
    """How far two tracks [frames] differ, over the length of the shorter."""
    frames = min(len(pitch), len(other))
    pitch, other = pitch[:frames], other[:frames]
    voiced, also = np.isfinite(pitch), np.isfinite(other)
    both = voiced & also
    cents = None
    if both.any():
        cents = float(np.sqrt(np.mean((1200 * np.log2(pitch[both] / other[both])) ** 2)))
    return PitchErrors(cents, float(np.mean(voiced != also)))


def median(pitch: np.ndarray) -> float | None:
    """Median of the voiced frames in Hz, None without any."""
    voiced = pitch[np.isfinite(pitch)]
    return float(np.median(voiced)) if voiced.size else None
