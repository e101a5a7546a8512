"""Wall-clock budget of a run: predicts whether another call and a checkpoint still fit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

# The first calls do not count in the speed: the host has not yet made batches ahead.
_WARM_UP_CALLS = 2
# Share of the steps that would fit into the remaining time: hooks and saves take time too.
_CAUTION = 0.9
# Assumed duration of the first save, until one has been timed: that of a slow disk, but at most
# this share of the budget, so that a short run still has time for steps.
_SAVE_SECONDS, _SAVE_BYTES_A_SECOND, _SAVE_SHARE = 1.0, 100e6, 0.25


class TimeBudget:
    """Predicts whether another call, and the save after it, end within `max_seconds`.

    Time spent compiling (`compiling`) does not count: it moves the end.

    Args:
        max_seconds: budget, from now on; None without a limit.
        decay_seconds: duration of the final decay; None for none.
        size: bytes of a checkpoint.
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
        self._compiled = False

    @property
    def limited(self) -> bool:
        """Whether there is a time limit."""
        return self._end is not None

    def is_up(self, calls: int = 1) -> bool:
        """Whether so many calls, and a save with half as much again to spare, no longer fit."""
        left = float("inf") if self._end is None else self._end - time.monotonic()
        return left < calls * self._call + 1.5 * self._save

    def stepped(self, count: int) -> None:
        """Record the end of a call of `count` steps."""
        now = time.monotonic()
        taken, self._last = now - self._last, now
        self._calls += 1
        if self._calls > _WARM_UP_CALLS and not self._compiled:
            self._call = taken
            self._steps += count
            self._stepping += taken
        self._compiled = False

    def decays(self) -> bool:
        """Whether the final decay is due; the save after it takes none of its time."""
        if self._decay is None or self._end is None or not self._steps:
            return False
        return self._end - time.monotonic() < self._decay + 2 * self._save

    def steps_left(self) -> int | None:
        """Steps that fit before the end and its save, at the mean pace so far.

        None where nothing limits them, or while no call has been timed.
        """
        if self._end is None or not self._steps:
            return None
        pace = self._stepping / self._steps
        left = self._end - time.monotonic() - 2 * self._save
        return max(1, int(_CAUTION * left / max(pace, 1e-9)))

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Times a save, which belongs to none of the calls."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._last = time.monotonic()
            self._save = self._last - began

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Moves the end by the time that passes inside."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._last = time.monotonic()
            self._compiled = True
            if self._end is not None:
                self._end += self._last - began
