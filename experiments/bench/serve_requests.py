"""Library of `serve`: the requests of one run, drawn from a seed: texts, lengths, arrival times."""

from __future__ import annotations

import math
import random
from typing import Any

from experiments import command

FRAMES_PER_SECOND = 12.5
# Seconds of speech of a request whose end is not the model's: about those of Seed-TTS EN.
MEAN, SIGMA, SHORTEST, LONGEST = 4.2, 0.4, 1.5, 10.0
LENGTHS = (
    f"drawn by the client and sent as max_new_tokens: log-normal, mean {MEAN:g} s, "
    f"sigma {SIGMA:g}, clipped to {SHORTEST:g} ... {LONGEST:g} s"
)

TEXTS = (
    "Yes, of course.",
    "The train to the coast leaves at nine.",
    "She put the letter back into the drawer and closed it.",
    "We have not seen so much rain in this valley for many years.",
    "Turn left after the bridge, and then follow the river until you reach the mill.",
    "Nobody in the room knew what to say, so they listened to the clock on the wall.",
    "The report was finished late on Friday, and it was sent to all members of the board.",
    "If you mix the two colours carefully, the result is the grey of the sea in winter.",
)


def body(text: str, seed: int) -> dict[str, Any]:
    """The JSON body of a request for streamed samples."""
    return {"input": text, "response_format": "pcm", "seed": seed}


def bodies(count: int, seed: int, lengths: bool = False) -> list[dict[str, Any]]:
    """Bodies of `count` requests.

    Args:
        lengths: bound each by a drawn `max_new_tokens`.
    """
    draw = random.Random(f"bodies {seed}")
    made = [body(draw.choice(TEXTS), 1000 * seed + i) for i in range(count)]
    if lengths:
        for each in made:
            # The end of speech, which random weights never draw, is counted too.
            each["max_new_tokens"] = frames(draw) + 1
    return made


def frames(draw: random.Random) -> int:
    """Frames of one utterance of a drawn length."""
    seconds = draw.lognormvariate(math.log(MEAN) - SIGMA**2 / 2, SIGMA)
    return round(FRAMES_PER_SECOND * min(max(seconds, SHORTEST), LONGEST))


def arrivals(count: int, rate: float, seed: int) -> list[float]:
    """Times of `count` Poisson arrivals of `rate` a second, in seconds from the start of a run."""
    draw, due, at = random.Random(f"arrivals {seed}"), list[float](), 0.0
    for _ in range(count):
        at += draw.expovariate(rate)
        due.append(at)
    return due


if __name__ == "__main__":
    users = [f"experiments.bench.{name}" for name in ("serve", "serve_soak", "batch_lines")]
    raise SystemExit(command.exit_status_of_library(__file__, *users))
