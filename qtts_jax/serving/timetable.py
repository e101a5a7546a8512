"""Times of the device's programs: measured ones, and when the running ones should end."""

from __future__ import annotations

import time
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
        prefills: numbers of requests of the prefills in front of it.
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
        self._last_end = 0.0

    @property
    def prefills_wait(self) -> bool:
        """Whether prefills were dispatched since the last frames."""
        return bool(self._prefills)

    def prefill(self, requests: int) -> float:
        """Expected seconds of the prefill of some requests; 0 before the first."""
        return self._costs(("prefill", requests))

    def program(self, rows: int, frames: int) -> float:
        """Expected seconds of a program that makes frames; 0 before the first."""
        return self._costs((rows, frames))

    def lead(self, requests_wait: bool) -> float:
        """Seconds before a program ends at which the next one has to be dispatched."""
        return POLL + 1.5 * self._costs("dispatch") + self._costs("admit") * requests_wait

    def host_share(self, flight: Flight) -> float:
        """Expected seconds of a dispatch by those of a program; 0 before the first."""
        program = self.program(len(flight.tenants), flight.frames)
        return self._costs("dispatch") / program if program else 0.0

    def prefilled(self, requests: int, begin: float) -> None:
        """Count a prefill that was dispatched just now.

        Args:
            begin: when its dispatch began.
        """
        if not self._prefills:
            self._first = begin
        self._prefills.append(requests)
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
        before: Flight | None,
    ) -> Flight:
        """Count a program that was dispatched just now.

        Args:
            codes, wave, tenants, frames: as of `Flight`.
            begin: when its dispatch began.
            before: the program in front of it, if that still runs.
        """
        prefills, self._prefills = self._prefills, []
        self._costs.measured("dispatch", time.monotonic() - begin)
        seconds = sum(self.prefill(requests) for requests in prefills)
        seconds += self.program(len(tenants), frames)
        end = max(begin, before.end if before else begin) + seconds
        begin = self._first if prefills else begin
        return Flight(codes, wave, tenants, frames, prefills, begin, end)

    def ended(self, flight: Flight) -> None:
        """Count a program that has ended just now, and the prefill in front of it."""
        now = time.monotonic()
        seconds = now - max(flight.begin, self._last_end)
        self._last_end = now
        rows = len(flight.tenants)
        if not flight.prefills:
            self._costs.measured((rows, flight.frames), seconds)
        elif len(flight.prefills) == 1:  # nothing waited for the prefill alone
            prefill = max(0.0, seconds - self.program(rows, flight.frames))
            self._costs.measured(("prefill", flight.prefills[0]), prefill)
