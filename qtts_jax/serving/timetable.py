"""Times of the device's programs: measured ones, and when the running ones should end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from qtts_jax.serving.scheduler import Costs
from qtts_jax.serving.utterance import Utterance

# Seconds between two looks at a running program.
POLL = 0.001


class Flight(NamedTuple):
    """A program that was dispatched and whose results were not taken yet.

    Attributes:
        codes, wave: as of `RowGroup.run`.
        tenants: the utterances of its rows.
        frames: of each row.
        prefills: rows of the prefills in front of it.
        begin: when it was dispatched, or the first of these prefills was.
        end: when it should end.
    """

    codes: Any  # a jax.Array, whose type does not have `is_ready`
    wave: jax.Array | None
    tenants: list[Utterance | None]
    frames: int
    prefills: list[int]
    begin: float
    end: float


class Timetable:
    """Expected seconds of programs and of their dispatch, from those that have run."""

    def __init__(self) -> None:
        self._costs = Costs()
        # Prefills since the last frames, and when the first of them was dispatched.
        self._prefills: list[int] = []
        self._first = 0.0
        # When the last program ended, and when all that was dispatched should have.
        self._last_end = self._end = 0.0

    def expect(self, seconds: Mapping[tuple[int, int], float]) -> None:
        """Take the seconds of programs, by their rows and frames, from an earlier measurement."""
        for program, each in seconds.items():
            self._costs.measured(program, each)

    def prefill(self, rows: int) -> float:
        """Expected seconds of a prefill; 0 before the first."""
        return self._costs(("prefill", rows))

    def program(self, rows: int, frames: int) -> float:
        """Expected seconds of a program that makes frames; 0 before the first."""
        return self._costs((rows, frames))

    def lead(self, rows: int, requests_wait: bool) -> float:
        """Seconds before a program ends at which the next one has to be dispatched."""
        return POLL + 1.5 * self._costs(("dispatch", rows)) + self._costs("admit") * requests_wait

    def host_share(self, flight: Flight) -> float:
        """Expected seconds of a dispatch by those of a program; 0 before the first."""
        rows = len(flight.tenants)
        program = self.program(rows, flight.frames)
        return self._costs(("dispatch", rows)) / program if program else 0.0

    def prefilled(self, rows: int, begin: float) -> None:
        """Count a prefill that was dispatched just now.

        Args:
            begin: when its dispatch began.
        """
        if not self._prefills:
            self._first = begin
        self._prefills.append(rows)

    @property
    def move(self) -> float:
        """Expected seconds until new rows are in the batch."""
        return self._costs("move")

    def moved(self, begin: float) -> None:
        """Count new rows that were put into the batch just now.

        Args:
            begin: when this began.
        """
        self._costs.measured("move", time.monotonic() - begin)

    def admitted(self, begin: float) -> None:
        """Count an admission, with its prefill, that was dispatched just now.

        Args:
            begin: when its dispatch began.
        """
        self._costs.measured("admit", time.monotonic() - begin)

    def forget_prefills(self) -> None:
        """Count none of the prefills since the last frames: their requests have left."""
        self._prefills = []

    def dispatched(
        self,
        codes: Any,
        wave: jax.Array | None,
        tenants: list[Utterance | None],
        frames: int,
        begin: float,
    ) -> Flight:
        """Count a program that was dispatched just now.

        Args:
            codes, wave, tenants, frames: as of `Flight`.
            begin: when its dispatch began.
        """
        prefills, self._prefills = self._prefills, []
        self._costs.measured(("dispatch", len(tenants)), time.monotonic() - begin)
        seconds = sum(self.prefill(size) for size in prefills)
        seconds += self.program(len(tenants), frames)
        self._end = max(begin, self._end) + seconds
        begin = self._first if prefills else begin
        return Flight(codes, wave, tenants, frames, prefills, begin, self._end)

    def ended(self, flight: Flight) -> None:
        """Count a program that has ended just now, and the prefill in front of it."""
        now = time.monotonic()
        seconds = now - max(flight.begin, self._last_end)
        self._last_end = now
        if flight.end == self._end:  # the device is idle, whatever was expected
            self._end = now
        rows = len(flight.tenants)
        if not flight.prefills:
            self._costs.measured((rows, flight.frames), seconds)
        elif len(flight.prefills) == 1:  # nothing waited for the prefill alone
            prefill = max(0.0, seconds - self.program(rows, flight.frames))
            self._costs.measured(("prefill", flight.prefills[0]), prefill)
