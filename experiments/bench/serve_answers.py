"""Library of `serve`: answers as their clients saw them, and the figures of those of a run."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from experiments import command

RATE = 24_000
BYTES_PER_SECOND = 2 * RATE
WINDOW = RATE // 50
AUDIBLE = 10 ** (-50 / 20)
LONGEST_GAP = 0.1


@dataclass
class Answer:
    """One request as its client saw it; times in seconds from the request.

    Attributes:
        arrivals: the time of each part of the answer, and the bytes that had come by then.
        audible: the first audible sound; None for silence.
        fault: why it was refused or cut off; None for a complete answer.
        late: from the time at which the request was due until it was sent.
    """

    arrivals: list[tuple[float, int]] = field(default_factory=list)
    audible: float | None = None
    fault: str | None = None
    late: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether it was refused or cut off."""
        return self.fault is not None

    @property
    def seconds(self) -> float:
        """Of audio."""
        return self.arrivals[-1][1] / BYTES_PER_SECOND if self.arrivals else 0.0

    @property
    def longest_gap(self) -> float:
        """The longest wait of a player that starts with the first bytes."""
        longest, played, plays_until = 0.0, 0, self.arrivals[0][0]
        for at, count in self.arrivals:
            longest = max(longest, at - plays_until)
            plays_until = max(at, plays_until) + (count - played) / BYTES_PER_SECOND
            played = count
        return longest


class Audibility:
    """Whether 20 ms of a stream of 16-bit samples have an RMS level above -50 dBFS."""

    def __init__(self) -> None:
        self._rest = b""

    def __call__(self, part: bytes) -> bool:
        """Whether this is so of the windows that `part` completes."""
        content = self._rest + part
        count = len(content) // (2 * WINDOW)
        self._rest = content[2 * WINDOW * count :]
        windows = np.frombuffer(content, "<i2", WINDOW * count).reshape(count, WINDOW) / 32768
        return bool((np.mean(windows**2, axis=1) > AUDIBLE**2).any())


def figures(answers: list[Answer], wall: float) -> dict[str, Any]:
    """Figures of the answers of one run.

    Args:
        wall: seconds of the run.
    """
    good = [answer for answer in answers if not answer.failed]
    audio = [answer.seconds for answer in good]
    return {
        "requests": len(answers),
        "failed": len(answers) - len(good),
        "faults": dict(collections.Counter(a.fault for a in answers if a.fault is not None)),
        "first_byte_ms": percentiles([a.arrivals[0][0] for a in good]),
        "first_audible_ms": percentiles([a.audible for a in good if a.audible is not None]),
        "end_ms": percentiles([a.arrivals[-1][0] for a in good]),
        "underruns": sum(a.longest_gap > LONGEST_GAP for a in good),
        "audio_s": round(sum(audio) / len(audio), 3) if audio else None,
        "audio_s_per_s": round(sum(audio) / wall, 2),
        "requests_per_s": round(len(good) / wall, 2),
        "wall_s": round(wall, 2),
    }


def percentiles(seconds: list[float]) -> dict[str, float] | None:
    """Median, 95th and 99th percentile in milliseconds; None of nothing."""
    if not seconds:
        return None
    values = np.percentile(seconds, [50, 95, 99])
    return {f"p{p}": round(1e3 * float(x), 1) for p, x in zip((50, 95, 99), values, strict=True)}


if __name__ == "__main__":
    users = [f"experiments.bench.{name}" for name in ("serve", "serve_soak")]
    raise SystemExit(command.exit_status_of_library(__file__, *users))
