"""Chooses what the device does next, from the times at which clients run out of audio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Playing(NamedTuple):
    """What the choice depends on, for one running row.

    Attributes:
        dry: when its client has played all audio; None before its first audio.
        frames: the most frames that its next chunk should have.
    """

    dry: float | None
    frames: int


# Seconds of a request that waits for its first audio count this many times those of one that has
# some.
FIRST_AUDIO = 8.0


def pays(waited: Sequence[float], running: int, prefill: float) -> bool:
    """Whether a prefill now is worth the time for which all running rows stand still.

    Where it is not, requests gather, and one program prefills more of them. A few rows never make
    a request wait long; with hundreds, prefills that follow each other would leave no time for
    frames.

    Args:
        waited: seconds of the requests that would be prefilled.
        running: rows that make frames.
        prefill: expected seconds.
    """
    return FIRST_AUDIO * sum(waited) >= running * prefill


def begins_alone(new: int, running: int, alone: float, saved: float) -> bool:
    """Whether the first frames of new requests are worth a program of their own.

    Args:
        new: requests that begin.
        running: rows that stand still meanwhile.
        alone: expected seconds of that program.
        saved: seconds by which their first audio comes sooner.
    """
    return FIRST_AUDIO * new * saved >= running * alone


def admits(playing: Sequence[Playing], now: float, prefill: float, admitted_last: bool) -> bool:
    """Whether a waiting request is prefilled before the next frames.

    It is, unless a client would run out of audio meanwhile. Then at most every other program is a
    prefill, so that neither side starves when the device is too slow for all.

    Args:
        now: the time.
        prefill: expected seconds of the prefill and of one frame after it.
        admitted_last: the last program was a prefill.
    """
    dry = [row.dry for row in playing if row.dry is not None]
    return not admitted_last or not dry or min(dry) >= now + prefill


# With so few rows the shortest programs are run, while they make audio so many times faster than it
# is played and take at most so many times as long for it as the longest ones. They cost a single
# row more, for which no program is dispatched ahead.
FEW, PLENTY, CHEAP = range(2, 17), 8.0, 2.0


def frames_of_next_program(
    sizes: Sequence[int],
    playing: Sequence[Playing],
    now: float,
    cost: Callable[[int], float],
    played: float,
) -> int:
    """Frames of the next program, one of `sizes`.

    No row gets a longer chunk than it should have, so an utterance that is at its first chunk does
    not wait for a long one. Within this, the longest chunk that arrives before any client runs out
    of audio; when none does, the longest, because it makes most frames a second. With few rows,
    where the shortest are fast enough by far, they are run instead: the next request then waits for
    a short one.

    Args:
        sizes: frames of the programs, ascending.
        playing: at least one row.
        now: the time.
        cost: expected seconds of a program, by its frames.
        played: seconds of audio of a frame; 0 where it is not played meanwhile (offline, 25 Hz).
    """
    allowed = [size for size in sizes if size <= min(row.frames for row in playing)] or sizes[:1]
    shortest, longest = (cost(size) / size for size in (allowed[0], allowed[-1]))
    quick = PLENTY * shortest <= played and shortest <= CHEAP * longest
    if quick and longest and len(playing) in FEW:
        return allowed[0]
    dry = min((row.dry for row in playing if row.dry is not None), default=None)
    in_time = [size for size in allowed if dry is None or now + cost(size) <= dry]
    return max(in_time or allowed)


class Costs:
    """Expected seconds of programs: moving averages of the measured ones.

    Args:
        weight: of the newest measurement.
    """

    def __init__(self, weight: float = 0.3) -> None:
        self._weight = weight
        self._seconds: dict[object, float] = {}

    def measured(self, program: object, seconds: float) -> None:
        """Count one run of a program."""
        before = self._seconds.get(program, seconds)
        self._seconds[program] = before + self._weight * (seconds - before)

    def __call__(self, program: object) -> float:
        """Expected seconds; 0 for a program that has not run."""
        return self._seconds.get(program, 0.0)
