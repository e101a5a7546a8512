"""A sample to score: one clip with its text and the recordings it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from qtts_jax.evaluation.bootstrap import Score
from qtts_jax.io.audio import AudioSource, load_audio

SAMPLE_RATE = 16_000  # input rate of all judges


@dataclass(frozen=True)
class Sample:
    """One clip to score; waves are [T] float32 at 16 kHz.

    Attributes:
        clip: name of the clip, the same in all rows.
        wave: the scored audio; empty when nothing was spoken.
        text: what should be said.
        language: full lower-case name.
        aligned: a recording of the same words at the same time, None if there is none.
        voice: a recording of the speaker it should sound like, None if there is none.
        seconds, expected_seconds: how long it is and should be, None if not known.
        known: scores that the task itself has found.
    """

    clip: str
    wave: np.ndarray
    text: str
    language: str
    aligned: np.ndarray | None = None
    voice: np.ndarray | None = None
    seconds: float | None = None
    expected_seconds: float | None = None
    known: dict[str, Score] = field(default_factory=dict)


def load_mono_16k(source: AudioSource) -> np.ndarray:
    """Load audio as the judges take it: mono float32 [T] at 16 kHz.

    Args:
        source: as of `load_audio`.

    Raises:
        AudioError: it cannot be used.
    """
    if isinstance(source, tuple) and not len(source[0]):
        return np.zeros(0, np.float32)
    return load_audio(source, SAMPLE_RATE)


def same_length(wave: np.ndarray, length: int) -> np.ndarray:
    """A wave [T] cut, or filled with zeros, to a length."""
    return np.pad(wave[:length], (0, max(0, length - len(wave))))


def evenly(items: Sequence, count: int) -> list:
    """At most `count` of the items, evenly spaced."""
    if count >= len(items):
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]
