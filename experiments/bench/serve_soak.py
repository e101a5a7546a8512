"""Whether a server's memory stays flat under steady load.

    python -m experiments.bench.serve_soak --minutes 30 --rate 2 --out experiments/results/soak.json

Starts `qtts serve` on this machine and sends it requests at random times (Poisson arrivals), with
texts and seeds that do not repeat. Its resident memory is read every second. The exit status is 1
if any of it after the first sixth of the time is more than 2 % above what it was then, if a request
failed, or if a row is in use at the end.

Where the machine is too slow for the rate, requests wait and are refused, which counts as failed:
choose a rate that it can serve."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import command
from experiments.bench.serve_answers import Answer
from experiments.bench.serve_client import connect, send
from experiments.bench.serve_process import ServerProcess
from experiments.bench.serve_requests import TEXTS, body
from qtts_jax.errors import QTTSError

FIRST_PART = 1 / 6
GROWTH = 0.02


def measure(
    options: Sequence[str],
    minutes: float,
    rate: float,
    seed: int,
    texts: Sequence[str] = TEXTS,
) -> dict[str, Any]:
    """Memory over time, and what became of the requests.

    Args:
        options: of `qtts serve`.
        rate: requests a second.
        seed: of texts and arrival times.
        texts: to choose from.
    """
    draw, answers, clients = random.Random(seed), list[Answer](), list[threading.Thread]()
    memory: list[tuple[float, float]] = []

    def client(text: str, number: int) -> None:
        with connect({}) as session:
            answers.append(send(session, server.url, body(text, number)))

    with ServerProcess(options) as server:
        start = time.monotonic()
        due = start + draw.expovariate(rate)
        while (now := time.monotonic()) < start + 60 * minutes:
            if now >= due:
                due += draw.expovariate(rate)
                number = len(clients)
                clients.append(
                    threading.Thread(
                        target=client, args=(f"{draw.choice(texts)} {number}.", number)
                    )
                )
                clients[-1].start()
            if not memory or now - start >= memory[-1][0] + 1:
                memory.append((now - start, server.memory))
            time.sleep(max(0.0, min(due, start + memory[-1][0] + 1) - time.monotonic()))
        for each in clients:
            each.join()
        left = server.settle()
        memory.append((time.monotonic() - start, server.memory))
    warm = [mib for at, mib in memory if at <= 60 * minutes * FIRST_PART][-1]
    later = [mib for at, mib in memory if at > 60 * minutes * FIRST_PART]
    step = max(1, len(memory) // 60)
    return {
        "minutes": minutes,
        "rate": rate,
        "seed": seed,
        "requests": len(answers),
        "failed": sum(answer.failed for answer in answers),
        "audio_seconds": round(sum(answer.seconds for answer in answers), 1),
        "requests_left": left,
        "memory_mib_after_first_part": round(warm, 1),
        "memory_mib_most_later": round(max(later), 1),
        "growth": round(max(later) / warm - 1, 4),
        "memory_mib": [[round(at), round(mib, 1)] for at, mib in memory[::step]],
    }


def faults(result: dict[str, Any]) -> list[str]:
    """What is wrong with the figures of `measure`, one sentence each."""
    found = []
    if result["growth"] > GROWTH:
        found.append(f"memory grew by {100 * result['growth']:.1f} %.")
    if result["failed"] or result["requests_left"]:
        found.append(f"{result['failed']} requests failed, {result['requests_left']} are left.")
    return found


def main() -> None:
    """Run the soak test and write its figures."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--model", type=Path, help="converted checkpoint (default: nano)")
    parser.add_argument("--minutes", type=float, default=30.0, help="of load")
    parser.add_argument("--rate", type=float, default=2.0, help="requests a second")
    parser.add_argument("--seed", type=int, default=0, help="of texts and arrival times")
    parser.add_argument("--out", type=Path, help="JSON file (default: printed only)")
    args: argparse.Namespace = parser.parse_args()
    options = [] if args.model is None else ["--model", str(args.model)]
    result = measure(options, args.minutes, args.rate, args.seed)
    result |= {"machine": f"{os.cpu_count()} cores, {platform.machine()}"}
    text = json.dumps(result)
    print(text, flush=True)
    if args.out is not None:
        args.out.write_text(text + "\n")
    if found := faults(result):
        raise QTTSError(" ".join(found))


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
