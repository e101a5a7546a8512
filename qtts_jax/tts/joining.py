"""Joins the audio of the parts of a long text by pauses of natural length, chunk by chunk."""

from __future__ import annotations

import numpy as np

SILENT = 0.02  # of the largest sample of the part before, -34 dB
RAMP_SECONDS = 0.005  # from the last sample of a part to zero, so that there is no click


class Joiner:
    """Takes the chunks of one part after the other and gives the chunks of the joined audio.

    A pause is what lies between the last sample of speech of a part and the first one of the next.
    Silence that the parts already have counts; none of it is cut off. The audio of the first part
    is given out as it comes. Of each further part only the silence at its begin is held back.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._peak = 0.0
        self._silence = 0  # samples since the last one of speech
        self._last = 0.0
        self._wanted: int | None = None  # samples of the pause that is open
        self._held: list[np.ndarray] = []

    def pause(self, seconds: float) -> None:
        """End a part; the next chunk belongs to another one."""
        self._wanted = round(seconds * self._rate)

    def push(self, chunk: np.ndarray) -> np.ndarray:
        """The next chunk of the current part [n] float32 -> what can be given out [m]."""
        if self._wanted is None:
            return self._passed(chunk)
        level = SILENT * self._peak
        self._held.append(chunk)
        joined = np.concatenate(self._held)
        loud = np.flatnonzero(np.abs(joined) > level)
        if not len(loud) and len(joined) < self._wanted:
            return joined[:0]
        silent = int(loud[0]) if len(loud) else len(joined)
        return self._passed(np.concatenate([self._gap(silent), joined]))

    def finish(self) -> np.ndarray:
        """What is still held back, after the last chunk."""
        held, self._held, self._wanted = self._held, [], None
        return np.concatenate(held) if held else np.zeros((0,), np.float32)

    def _gap(self, silent: int) -> np.ndarray:
        """Zeros to insert before a part whose first `silent` samples are silent."""
        assert self._wanted is not None
        missing = max(0, self._wanted - self._silence - silent)
        gap = np.zeros((missing,), np.float32)
        ramp = min(missing, round(RAMP_SECONDS * self._rate))
        gap[:ramp] = self._last * np.linspace(1, 0, ramp, dtype=np.float32)
        self._wanted, self._held, self._peak, self._silence = None, [], 0.0, 0
        return gap

    def _passed(self, chunk: np.ndarray) -> np.ndarray:
        """Measure a chunk that is given out."""
        if len(chunk):
            self._peak = max(self._peak, float(np.max(np.abs(chunk))))
            loud = np.flatnonzero(np.abs(chunk) > SILENT * self._peak)
            silent = len(chunk) - 1 - int(loud[-1]) if len(loud) else len(chunk)
            self._silence = silent if len(loud) else self._silence + silent
            self._last = float(chunk[-1])
        return chunk
