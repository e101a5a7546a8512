"""Latency and throughput of a running server: open loop (Poisson arrivals) and closed loop.

    python -m experiments.bench.serve --serve --rates 1 --streams 1 2 4 6 --seeds 0 1 2

Streamed requests for samples go to `POST /v1/audio/speech` of a server, which is another process:
one that runs already (`--url`), or one that is started for the measurement (`--serve`). In the open
loop they come at random times that do not depend on the answers, in the closed loop each of a
number of clients sends its next request when it has its last answer whole. For every rate, number
of clients and seed:

- first_byte_ms, first_audible_ms: from the request to its first bytes, and to the arrival of the
  first 20 ms whose RMS level is above -50 dBFS; median, 95th and 99th percentile.
- end_ms: from the request to its last bytes.
- sent_late_ms (open loop): from the time at which a request was due until it was sent; where it is
  not far below first_byte_ms, the clients are too slow for the load (`--processes`).
- underruns: requests whose player, which starts with the first bytes, waits for more than 100 ms.
- audio_s: the mean seconds of audio of a request.
- audio_s_per_s, requests_per_s: seconds of audio and complete answers a second of the whole run
  (wall_s), which ends with the last answer: give each client several requests (`--each`).
- offered: requests a second that arrived (open loop).
- failed, faults: requests that were refused or cut off, and why.
- load_before: the machine's load average of one minute before the run; without this command it
  should be near 0.

`--size` measures a model of released size with random weights, which `--serve` then starts
(`serve_random.py`):

    python -m experiments.bench.serve --serve --size 1.7B --options "--rows 256 --max-waiting 256 \
--max-seconds 12 --max-prompt 64" --rates 1 20 --seconds 30 --streams 1 64 256 --each 8 \
--requests 50 --out 1b7.json

All of N clients may wait at once, at the start of a run: `--max-waiting` must be at least that.
Random weights never end an utterance, so each request gets a length from the client, drawn from
about those of Seed-TTS EN: log-normal with mean 4.2 s (`lengths` of the result).

`--report FILE ... --table FILE.md` measures nothing and makes one table of several results:

    python -m experiments.bench.serve --report experiments/results/serve.json \
--table experiments/results/serve.md"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
from pathlib import Path
from typing import Any

from experiments import command
from experiments.bench.serve_answers import figures, percentiles
from experiments.bench.serve_client import Clients
from experiments.bench.serve_process import ServerProcess
from experiments.bench.serve_report import report
from experiments.bench.serve_requests import LENGTHS, arrivals, bodies

# Of the unmeasured requests; those of the runs are small.
WARM_SEED = 999_999


def measure(
    clients: Clients, rate: float, count: int, seed: int, lengths: bool = False
) -> dict[str, Any]:
    """Figures of `count` requests that arrive at `rate` a second.

    Args:
        seed: of texts, lengths and arrival times.
        lengths: whether lengths are drawn.
    """
    due, load = arrivals(count, rate, seed), round(os.getloadavg()[0], 1)
    answers, wall = clients.open(bodies(count, seed, lengths), due)
    return {
        "rate": rate,
        "seed": seed,
        "offered": round(count / due[-1], 2),
        "sent_late_ms": percentiles([answer.late for answer in answers]),
        **figures(answers, wall),
        "load_before": load,
    }


def measure_closed(
    clients: Clients, streams: int, count: int, seed: int, lengths: bool = False
) -> dict[str, Any]:
    """Figures of `streams` clients that send `count` requests in all, each one after the other.

    Args:
        seed, lengths: as of `measure`.
    """
    load = round(os.getloadavg()[0], 1)
    found = figures(*clients.closed(bodies(count, seed, lengths), streams))
    return {"streams": streams, "seed": seed} | found | {"load_before": load}


def run_all(clients: Clients, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Figures of every rate and number of clients with every seed, printed as they are made."""
    lengths, runs = args.size is not None, []
    if args.warm:
        streams = min(args.warm, max(args.streams, default=args.warm))
        clients.closed(bodies(args.warm, WARM_SEED, lengths), streams)
    for seed in args.seeds:
        for rate in args.rates:
            count = max(args.requests, round(rate * args.seconds))
            runs.append(measure(clients, rate, count, seed, lengths))
            print(json.dumps(runs[-1]), flush=True)
        for streams in args.streams:
            count = max(args.requests, streams * args.each)
            runs.append(measure_closed(clients, streams, count, seed, lengths))
            print(json.dumps(runs[-1]), flush=True)
    return runs


def start_server(args: argparse.Namespace) -> ServerProcess:
    """The server that the options describe."""
    options = shlex.split(args.options)
    if args.size is None:
        return ServerProcess(options)
    return ServerProcess(options, ["experiments.bench.serve_random", "--size", args.size])


def main() -> None:
    """Run every rate and number of clients with every seed and write the figures."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--url", default="http://127.0.0.1:9000", help="of the server")
    parser.add_argument(
        "--serve", action="store_true", help="start `qtts serve` with nano, or --size"
    )
    parser.add_argument(
        "--size", help="0.6B, 1.7B or tiny: a model with random weights; lengths are drawn"
    )
    parser.add_argument("--options", default="", help="of the started server, in one string")
    parser.add_argument("--key", help="bearer key of the server")
    parser.add_argument("--rates", type=float, nargs="*", default=[1.0], help="requests a second")
    parser.add_argument("--streams", type=int, nargs="*", default=[], help="clients at once")
    parser.add_argument("--requests", type=int, default=100, help="of each run, at least")
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="of arrivals at a rate, at least"
    )
    parser.add_argument("--each", type=int, default=1, help="requests of a client, at least")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run each")
    parser.add_argument("--warm", type=int, default=16, help="unmeasured requests before the runs")
    processes = min(max((os.cpu_count() or 1) // 4, 1), 8)
    parser.add_argument("--processes", type=int, default=processes, help="of the clients")
    parser.add_argument("--about", default="", help="a sentence on the conditions")
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    parser.add_argument("--machine", default=machine, help="name of this machine")
    parser.add_argument("--out", type=Path, help="JSON file (default: printed only)")
    parser.add_argument("--table", type=Path, help="Markdown file (default: none)")
    parser.add_argument("--report", type=Path, nargs="+", help="JSON files to make --table of")
    args = parser.parse_args()
    if args.report:
        if args.table is None:
            parser.error("--report needs --table")
        results = {path.name: json.loads(path.read_text()) for path in args.report}
    else:
        headers = {"Authorization": f"Bearer {args.key}"} if args.key else {}
        with start_server(args) if args.serve else contextlib.nullcontext() as server:
            url = args.url if server is None else server.url
            with Clients(url, headers, args.processes) as clients:
                runs = run_all(clients, args)
        result = {
            "machine": args.machine,
            "about": args.about,
            "size": args.size,
            "options": args.options,
            "lengths": None if args.size is None else LENGTHS,
            "processes": args.processes,
            "runs": runs,
        }
        results = {args.out.name if args.out else "One run": result}
        if args.out is not None:
            args.out.write_text(json.dumps(result, indent=1) + "\n")
    if args.table is not None:
        args.table.write_text(report(results))


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
