"""The time of a piece of a run: what of it the calls and saves take, and what is left."""

from __future__ import annotations

import time
from typing import Any

# Calls of a piece that are not counted in its speed: they compile.
_COMPILING = 2
# Share of the steps that would fit into the rest of a piece: hooks and saves take time too.
_CAUTION = 0.9
# What the first save is thought to take, until one has been timed: that of a slow disk, but never
# so much of a short piece that no step would fit.
_SAVE_SECONDS, _SAVE_BYTES_A_SECOND, _SAVE_SHARE = 1.0, 100e6, 0.25


class PieceClock:
    """Whether another call and the save after it still fit into the time of this piece.

    Args:
        max_seconds: of the piece; None without end.
        decay_seconds: of the last decay; None for none.
        size: of a checkpoint, bytes.
    """

    def __init__(self, max_seconds: float | None, decay_seconds: float | None, size: int) -> None:
        now = time.monotonic()
        self._end: float | None = None
        self._call = self._save = 0.0
        if max_seconds is not None:
            self._end = now + max_seconds
            guess = _SAVE_SECONDS + size / _SAVE_BYTES_A_SECOND
            self._save = min(guess, _SAVE_SHARE * max_seconds)
        self._decay = decay_seconds
        self._last = now
        self._calls, self._steps, self._stepping = 0, 0, 0.0

    def is_up(self) -> bool:
        """Whether the next call, and a save with half as much again to spare, no longer fit."""
        left = float("inf") if self._end is None else self._end - time.monotonic()
        return left < self._call + 1.5 * self._save

    def stepped(self, count: int) -> None:
        """One more call, of so many steps, is done."""
        now = time.monotonic()
        taken, self._last = now - self._last, now
        self._calls += 1
        if self._calls > _COMPILING:
            self._call = taken
            self._steps += count
            self._stepping += taken

    def decays(self) -> bool:
        """Whether the time of the last decay has come; the save after it takes none of it."""
        if self._decay is None or self._end is None or not self._steps:
            return False
        return self._end - time.monotonic() < self._decay + 2 * self._save

    def steps_left(self) -> int:
        """How many steps, at their mean pace so far, fit before the end and its save."""
        pace = self._stepping / self._steps
        left = self._end - time.monotonic() - 2 * self._save if self._end is not None else 0.0
        return max(1, int(_CAUTION * left / max(pace, 1e-9)))

    def saving(self) -> PieceClock:
        """A context that times a save, which is none of the calls."""
        return self

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: Any) -> None:
        self._last = time.monotonic()
        self._save = self._last - self._began
