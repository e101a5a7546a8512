"""Latency and throughput of a running server: open loop (Poisson arrivals) and closed loop.

    python -m experiments.bench.serve --serve --rates 1 --streams 1 2 4 6 --seeds 0 1 2

Requests go to `POST /tts/stream` of a server, which is another process: one that runs already
(`--url`), or one that is started for the measurement (`--serve`). In the open loop they come at
random times that do not depend on the answers, in the closed loop each of a number of clients sends
its next request when it has its last answer whole. For every rate, number of clients and seed:

- first_byte_ms, first_audible_ms: from the request to its first bytes, and to the arrival of the
  first 20 ms whose RMS level is above -50 dBFS; median and 95th percentile.
- end_ms: from the request to its last bytes.
- underruns: requests whose player, which starts with the first bytes, waits for more than 100 ms.
- audio_s_per_s: seconds of audio a second of the whole run.
- failed: requests that were refused or cut off.
- load_before: the machine's load average of one minute before the run; without this command it
  should be near 0."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import requests

from experiments import command
from experiments.bench.serve_process import ServerProcess

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
    load = os.getloadavg()[0]

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
    return {"rate": rate, "seed": seed} | _figures(answers, time.perf_counter() - start, load)


def measure_closed(
    url: str, clients: int, count: int, seed: int, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Figures of `clients` that send `count` requests in all, each one after the other.

    Args:
        url, seed, headers: as of `measure`.
    """
    draw, answers = random.Random(seed), [Answer() for _ in range(count)]
    texts = [draw.choice(TEXTS) for _ in range(count)]
    load = os.getloadavg()[0]

    def client(first: int) -> None:
        for i in range(first, count, clients):
            answers[i] = ask(url, texts[i], 1000 * seed + i, headers or {})

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - start
    return {"streams": clients, "seed": seed} | _figures(answers, wall, load)


def _figures(answers: list[Answer], wall: float, load: float) -> dict[str, Any]:
    """Figures of the answers of one run.

    Args:
        wall: seconds of the run.
        load: the machine's load average before it.
    """
    good = [answer for answer in answers if not answer.failed]
    return {
        "requests": len(answers),
        "failed": len(answers) - len(good),
        "first_byte_ms": _percentiles([a.arrivals[0][0] for a in good]),
        "first_audible_ms": _percentiles([a.audible for a in good if a.audible is not None]),
        "end_ms": _percentiles([a.arrivals[-1][0] for a in good]),
        "underruns": sum(a.longest_gap > LONGEST_GAP for a in good),
        "audio_s_per_s": round(sum(a.seconds for a in good) / wall, 2),
        "load_before": round(load, 1),
    }


def _percentiles(seconds: list[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    p50, p95 = np.percentile(seconds, [50, 95])
    return {"p50": round(1e3 * p50, 1), "p95": round(1e3 * p95, 1)}


def table(result: dict[str, Any]) -> str:
    """The figures of all runs as Markdown."""
    lines = [
        f"Of `python -m experiments.bench.serve`, on {result['machine']}; {result['about']}",
        "",
        "| load | seed | first byte p50 / p95, ms | first audible p50 / p95, ms | underruns "
        "| failed | audio s per s | load average before |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in result["runs"]:
        load = f"{run['rate']:g} a second" if "rate" in run else f"{run['streams']} at once"
        first, audible = (
            "-" if run[name] is None else f"{run[name]['p50']:g} / {run[name]['p95']:g}"
            for name in ("first_byte_ms", "first_audible_ms")
        )
        lines.append(
            f"| {load} | {run['seed']} | {first} | {audible} | {run['underruns']} of "
            f"{run['requests']} | {run['failed']} | {run['audio_s_per_s']:g} | "
            f"{run['load_before']:g} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every rate and number of clients with every seed and write the figures."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--url", default="http://127.0.0.1:9000", help="of the server")
    parser.add_argument("--serve", action="store_true", help="start `qtts serve` with nano")
    parser.add_argument("--key", help="bearer key of the server")
    parser.add_argument("--rates", type=float, nargs="*", default=[1.0], help="requests a second")
    parser.add_argument("--streams", type=int, nargs="*", default=[], help="clients at once")
    parser.add_argument("--requests", type=int, default=100, help="of each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run each")
    parser.add_argument("--about", default="", help="a sentence on the conditions")
    parser.add_argument("--out", type=Path, help="JSON file (default: printed only)")
    parser.add_argument("--table", type=Path, help="Markdown file (default: none)")
    args: argparse.Namespace = parser.parse_args()
    headers = {"Authorization": f"Bearer {args.key}"} if args.key else {}
    runs = []
    with ServerProcess() if args.serve else contextlib.nullcontext() as server:
        url = args.url if server is None else server.url
        for seed in args.seeds:
            for rate in args.rates:
                runs.append(measure(url, rate, args.requests, seed, headers))
                print(json.dumps(runs[-1]), flush=True)
            for clients in args.streams:
                runs.append(measure_closed(url, clients, args.requests, seed, headers))
                print(json.dumps(runs[-1]), flush=True)
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    result = {"machine": machine, "about": args.about, "runs": runs}
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    if args.table is not None:
        args.table.write_text(table(result))


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
