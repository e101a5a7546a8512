"""Latency and throughput of a running server under open-loop load (Poisson arrivals).

    qtts serve &
    python -m experiments.bench.serve --rates 1 5 --seeds 0 1 2 --out serve.json

Requests go to `POST /tts/stream` of the server, which is another process, at random times that do
not depend on the answers. For every rate and seed:

- first_byte_ms, first_audible_ms: from the request to its first bytes, and to the arrival of the
  first 20 ms whose RMS level is above -50 dBFS; median and 95th percentile.
- end_ms: from the request to its last bytes.
- underruns: requests whose player, which starts with the first bytes, waits for more than 100 ms.
- audio_s_per_s: seconds of audio a second of the whole run.
- failed: requests that were refused or cut off."""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import requests

from experiments import command

RATE = 24_000
BYTES_PER_SECOND = 2 * RATE
WINDOW = RATE // 50
AUDIBLE = 10 ** (-50 / 20)
LONGEST_GAP = 0.1
TIMEOUT = 120

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


@dataclass
class Answer:
    """One request as its client saw it; times in seconds from the request.

    Attributes:
        arrivals: the time of each part of the answer, and the bytes that had come by then.
        audible: the first audible sound; None for silence.
        failed: refused or cut off.
    """

    arrivals: list[tuple[float, int]] = field(default_factory=list)
    audible: float | None = None
    failed: bool = False

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


def ask(url: str, text: str, seed: int, headers: dict[str, str]) -> Answer:
    """Send one request and read its answer."""
    answer, content, start, checked = Answer(), bytearray(), time.perf_counter(), 0
    body = {"text": text, "seed": seed}
    try:
        with requests.post(
            f"{url}/tts/stream", json=body, headers=headers, stream=True, timeout=TIMEOUT
        ) as response:
            response.raise_for_status()
            for part in response.iter_content(chunk_size=None):
                content += part
                answer.arrivals.append((time.perf_counter() - start, len(content)))
                while answer.audible is None and len(content) >= 2 * (checked + WINDOW):
                    window = np.frombuffer(content, "<i2", WINDOW, 2 * checked) / 32768
                    checked += WINDOW
                    if np.sqrt(np.mean(window**2)) > AUDIBLE:
                        answer.audible = answer.arrivals[-1][0]
    except requests.RequestException:
        answer.failed = True
    answer.failed |= not answer.arrivals
    return answer


def measure(
    url: str, rate: float, count: int, seed: int, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Figures of `count` requests that arrive at `rate` a second.

    Args:
        url: of the server.
        seed: of texts and arrival times.
        headers: of the requests.
    """
    draw, answers, threads = random.Random(seed), [Answer() for _ in range(count)], []

    def client(i: int, text: str) -> None:
        answers[i] = ask(url, text, 1000 * seed + i, headers or {})

    start = due = time.perf_counter()
    for i in range(count):
        due += draw.expovariate(rate)
        time.sleep(max(0.0, due - time.perf_counter()))
        threads.append(threading.Thread(target=client, args=(i, draw.choice(TEXTS))))
        threads[-1].start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - start
    good = [answer for answer in answers if not answer.failed]
    return {
        "rate": rate,
        "seed": seed,
        "requests": count,
        "failed": count - len(good),
        "first_byte_ms": _percentiles([a.arrivals[0][0] for a in good]),
        "first_audible_ms": _percentiles([a.audible for a in good if a.audible is not None]),
        "end_ms": _percentiles([a.arrivals[-1][0] for a in good]),
        "underruns": sum(a.longest_gap > LONGEST_GAP for a in good),
        "audio_s_per_s": sum(a.seconds for a in good) / wall,
    }


def _percentiles(seconds: list[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    p50, p95 = np.percentile(seconds, [50, 95])
    return {"p50": round(1e3 * p50, 1), "p95": round(1e3 * p95, 1)}


def main() -> None:
    """Run every rate with every seed and write the figures."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--url", default="http://127.0.0.1:9000", help="of the server")
    parser.add_argument("--key", help="bearer key of the server")
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0], help="requests a second")
    parser.add_argument("--requests", type=int, default=100, help="of each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run each")
    parser.add_argument("--out", type=Path, help="JSON file (default: printed only)")
    args: argparse.Namespace = parser.parse_args()
    headers = {"Authorization": f"Bearer {args.key}"} if args.key else {}
    runs = []
    for rate in args.rates:
        for seed in args.seeds:
            runs.append(measure(args.url, rate, args.requests, seed, headers))
            print(json.dumps(runs[-1]), flush=True)
    if args.out is not None:
        args.out.write_text(json.dumps({"runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
