"""Library of `serve`: its results as Markdown, beside the published figures of other servers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments import command


class Published(NamedTuple):
    """What the authors of a server state of it; none of it was measured here."""

    source: str
    conditions: str
    first_audio: str
    audio: str


PUBLISHED = (
    Published(
        "vLLM-Omni, pull request 7781 (open)",
        "H100, 1.7B-Base, Seed-TTS EN twice (1,088 texts), 64 at once",
        "first packet p50 353, p99 1,139 (862 before the change, p50)",
        "111.9 (67.7 before the change)",
    ),
    Published(
        "vLLM-Omni, pull request 4582 (open)",
        "H200, 64 at once, runner V2 (V1)",
        "mean 447",
        "89.2 (64.2)",
    ),
    Published(
        "NVIDIA, vLLM-Omni pull request 3221 (closed, not merged)",
        "H100, codec in TensorRT, Triton over gRPC, 1 / 4 / 8 / 32 at once",
        "mean 40.9 / 72.5 / 88 / 184, p95 42.2 / 94.9 / 113 / 230",
        "8.83 / 25.1 / 40.6 / 85.2",
    ),
    Published(
        "SGLang-Omni, 1650",
        "H200, 1.7B-Base, 64 at once, 13.46 requests a second",
        "-",
        "about 56 (from requests a second)",
    ),
    Published(
        "Nari, in SGLang-Omni 1754",
        "H100, open loop, 1 / 6 / 10 requests a second",
        "audible p95 26.4 / 28.9 / 32.8",
        "-",
    ),
    Published(
        "SGLang-Omni, 1754",
        "H100, open loop, 1 / 6 / 10 requests a second",
        "audible p95 162 / 202 / 438",
        "-",
    ),
    Published(
        "Nari, in SGLang-Omni's vocoder study",
        "H100, 20 requests a second, 3 seeds",
        "p50 26.2, p95 38.0; underruns 0.17 to 0.77 %",
        "-",
    ),
    Published(
        "SGLang-Omni, vocoder study",
        "H100, 20 requests a second, 3 seeds, first chunks of 2 and 4 frames",
        "p50 161; underruns 2.73 %",
        "-",
    ),
)

COLUMNS = (
    "load",
    "seeds",
    "first byte p50 / p95 (worst seed's p95), ms",
    "first audible p50 / p95 (worst seed's p95), ms",
    "underruns",
    "failed",
    "audio s per s",
    "mean length, s",
)


def report(results: Mapping[str, dict[str, Any]]) -> str:
    """Results of `experiments.bench.serve` by their file names, and the published figures."""
    lines = [
        "Of `python -m experiments.bench.serve`, which says what is measured and how. Medians over "
        "the seeds, but underruns and failed requests of all.",
        "",
    ]
    for name, result in results.items():
        lines += [f"## {name}", "", *section(result), ""]
    lines += [
        "## Published figures of other servers",
        "",
        "As their authors state them, on their own texts, clients and machines, which differ from "
        "those above.",
        "",
        *_table(("source", "conditions", "first audio, ms", "audio s per s"), PUBLISHED),
    ]
    return "\n".join(lines) + "\n"


def section(result: dict[str, Any]) -> list[str]:
    """Lines on the conditions of one result, and its table with a row for every load."""
    about = [f"On {result['machine']}{': ' if result['about'] else '.'}{result['about']}"]
    if lengths := result.get("lengths"):
        model = f"Random weights of size {result['size']}"
        about.append(f"{model}; the length of each utterance is {lengths}.")
    if options := result.get("options"):
        about.append(f"Options of the server: `{options}`.")
    loads: dict[str, list[dict[str, Any]]] = {}
    for run in result["runs"]:
        load = f"{run['rate']:g} a second" if "rate" in run else f"{run['streams']} at once"
        loads.setdefault(load, []).append(run)
    return [" ".join(about), "", *_table(COLUMNS, [_row(*each) for each in loads.items()])]


def _row(load: str, runs: list[dict[str, Any]]) -> tuple[str, ...]:
    def median(name: str) -> str:
        values = [run[name] for run in runs if run.get(name) is not None]
        return f"{round(statistics.median(values), 2):g}" if values else "-"

    def times(name: str) -> str:
        values = [run[name] for run in runs if run[name] is not None]
        if not values:
            return "-"
        p50, p95 = (statistics.median(value[p] for value in values) for p in ("p50", "p95"))
        return f"{p50:g} / {p95:g} ({max(value['p95'] for value in values):g})"

    return (
        load,
        str(len(runs)),
        times("first_byte_ms"),
        times("first_audible_ms"),
        f"{sum(run['underruns'] for run in runs)} of {sum(run['requests'] for run in runs)}",
        str(sum(run["failed"] for run in runs)),
        median("audio_s_per_s"),
        median("audio_s"),
    )


def _table(columns: tuple[str, ...], rows: Any) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.bench.serve"))
