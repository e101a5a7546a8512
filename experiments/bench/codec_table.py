"""Library of `experiments.bench.codec`: a table of its results beside the figures of the paper."""

from __future__ import annotations

from typing import Any

from experiments import command

COMMAND = "python -m experiments.bench.codec --out experiments/results/bench_codec.NAME.json"
# Paper, Table 2 (0.6B, one user, hardware unnamed): milliseconds.
PAPER = {
    "12 Hz": {"first packet": 97, "packet": "4 frames (320 ms)"},
    "25 Hz": {"first packet": 138, "packet": "8 tokens (320 ms), the first one after 16"},
}
INTRODUCTION = f"""# What the two speech tokenizers cost

Random weights at released sizes; audio ends on the host. Commands:

    {COMMAND}
    python -m experiments.bench.codec --table experiments/results/bench_codec.*.json

The rows of 25 Hz are 10 points of the flow (9 network evaluations, doubled by guidance) and the
vocoder; `25 Hz class defaults` are the values of the official classes, which describe a decoder of
50 codes a second. `step` is one step in the middle of a stream, `first packet` a fresh decoder from
codes to its first samples, without waiting for the codes: that wait is the column beside it.
"""


def render(results: dict[str, Any]) -> str:
    """Markdown of result files by name."""
    sections = [_section(name, result) for name, result in sorted(results.items())]
    return "\n".join([INTRODUCTION, *sections, _paper()])


def _section(name: str, result: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    size = "" if result["size"] == "released" else f", {result['size']} sizes"
    lines = [f"## {result['device']}", "", f"`{name}`: {versions}{size}.", ""]
    if note := result.get("note"):
        lines += [note, ""]
    for title, rows in (
        ("Streams", _streams(result)),
        ("Whole", _whole(result)),
        ("Official 25 Hz decoder beside ours", _official(result)),
    ):
        if len(rows) > 1:
            lines += [f"{title}:", "", *_table(rows), ""]
    return "\n".join(lines)


def _streams(result: dict[str, Any]) -> list[list[str]]:
    head = ["tokenizer", "dtype", "batch", "step, codes", "ms a step", "ms for 1 s of audio"]
    rows = [[*head, "first packet, ms", "codes it waits for", "that is, ms"]]
    for name, dtype, batch, figures, part in _parts(result):
        for chunk, step in part["step"].items():
            wait = part["first_packet_codes"]
            numbers = (
                step["ms"],
                step["ms_per_audio_s"],
                part["first_packet_ms"],
                wait,
                1e3 * wait / figures["codes_per_s"],
            )
            rows.append([name, dtype, batch, chunk, *map(_n, numbers)])
    return rows


def _whole(result: dict[str, Any]) -> list[list[str]]:
    rows = [["tokenizer", "dtype", "batch", "call", "audio, s", "s a call", "ms for 1 s of audio"]]
    for name, dtype, batch, _, part in _parts(result):
        for kind in ("decode", "encode"):
            for seconds, figure in part.get(kind, {}).items():
                numbers = figure["s"], figure["ms_per_audio_s"]
                rows.append([name, dtype, batch, kind, seconds, *map(_n, numbers)])
    return rows


def _official(result: dict[str, Any]) -> list[list[str]]:
    """Ours in every dtype beside the official package, which computes in float32."""
    rows = [["tokenizer", "dtype of ours", "batch", "call", "official, ms", "ours, ms", "ratio"]]
    for name, dtype, batch, _, part in _parts(result):
        other = result.get("official", {}).get(name, {"batch": {}})["batch"].get(batch)
        if other is None:
            continue
        block = str(other["block"]["codes"])
        pairs = []
        if block in part["step"]:
            pairs = [(f"{block} codes", other["block"]["ms"], part["step"][block]["ms"])]
        for seconds, figure in other["decode"].items():
            mine = part.get("decode", {}).get(seconds)
            if mine is not None:
                pairs.append((f"decode {seconds} s", 1e3 * figure["s"], 1e3 * mine["s"]))
        for call, theirs, ours in pairs:
            rows.append([name, dtype, batch, call, _n(theirs), _n(ours), _n(ours / theirs)])
    return rows


def _parts(result: dict[str, Any]) -> Any:
    for name, by_dtype in result["families"].items():
        for dtype, figures in by_dtype.items():
            for batch, part in figures["batch"].items():
                yield name, dtype, batch, figures, part


def _paper() -> str:
    rows = [["tokenizer", "first packet of the whole 0.6B model, ms", "packet"]]
    rows += [[name, str(row["first packet"]), str(row["packet"])] for name, row in PAPER.items()]
    head = "## The paper (Table 2: one user, hardware unnamed, talker included)"
    return "\n".join([head, "", *_table(rows), ""])


def _table(rows: list[list[str]]) -> list[str]:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _n(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.bench.codec"))
