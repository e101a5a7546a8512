"""Speed on a mesh of devices: frames, first audio, training steps, and how they scale.

    python -m experiments.bench.sharded --out experiments/results/bench_sharded.NAME.json
    python -m experiments.bench.sharded --table

As many devices are used as there are: one GPU, several, a TPU host. `--cpu-devices 8 --size tiny`
checks the same paths on 8 virtual CPU devices, whose times mean nothing: they share the cores.
Random weights of released sizes, sampled, prompts of 51 positions, codec included. A mesh of one
device is the package's path for one device, kernels included, whatever else the host has.

Parts (`--parts`), each row of the result file written as soon as it is known and not measured
again, so that a command that was cut short (`--limit`) goes on where it stopped:

- codes: the same 5 requests in float32 on every mesh: the share of codes that differ from those of
  one device (0 is what is wanted).
- decode: milliseconds a frame and seconds of audio a second, chunks of 16 frames, for rows as
  follows. Weak scaling: `--batches` rows a device of the data axis. Strong scaling: `--totals` rows
  on all devices together. Latency: one row on the model axis.
- first_audio: milliseconds from a text string to the first chunk on the host, one request.
- collectives: share of the devices' time in which a collective runs, from a profile of decoding;
  left out where the profile has no device events (CPUs).
- train: seconds a step, positions a second, share of the peak (`experiments.bench.train`) with data
  parallelism and with FSDP: `--train-rows` rows a device (weak scaling), and as many rows in all as
  the largest mesh then has (strong scaling).

Programs are kept in `--cache`, so that a second run does not compile. Efficiency in the table is
the speed of n devices over n times that of one. In a few minutes on a host with four GPUs:

    python -m experiments.bench.sharded --devices 1,4 --meshes 1x1,4x1 --parts decode,train --weak

Commands with different rows may run at once, each on GPUs of its own, and write one file. A command
uses the first devices that it sees, so the order of CUDA_VISIBLE_DEVICES says which:

    export XLA_PYTHON_CLIENT_PREALLOCATE=false
    CUDA_VISIBLE_DEVICES=0,1,2,3 python -m experiments.bench.sharded --devices 1 --parts decode &
    CUDA_VISIBLE_DEVICES=2,3,0,1 python -m experiments.bench.sharded --devices 2 --parts train
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from experiments.bench import train
from experiments.bench.random_models import build
from experiments.bench.streams import (
    BATCH_CHUNK,
    FRAME_SECONDS,
    first_audio_ms,
    request,
    run_stream,
    start,
    steady_ms,
)
from qtts_jax import QwenTTS
from qtts_jax.generation.session import Session, generate_codes
from qtts_jax.io.atomic_files import write_whole
from qtts_jax.sharding import make_mesh

RESULTS = Path("experiments/results")
PARTS = ("codes", "decode", "first_audio", "collectives", "train")
COLLECTIVES = ("nccl", "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "permute")
CODES_FRAMES = 24
INTRODUCTION = """# Speed on several devices

Random weights of released sizes, sampled, codec included. Commands:

    python -m experiments.bench.sharded --out experiments/results/bench_sharded.NAME.json
    python -m experiments.bench.sharded --table

What each part measures stands at the head of `experiments/bench/sharded.py`. A mesh of 1x1 is the
package's path for one device. Weak efficiency: speed over n times that of one device with as many
rows a device; strong: with as many rows in all.
"""


@dataclass(frozen=True)
class Task:
    """One measurement: a part, a mesh, and rows of all devices."""

    part: str
    data: int
    model: int
    rows: int
    fsdp: int = 1

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.model


def tasks(args: argparse.Namespace, devices: int) -> list[Task]:
    """Every measurement that the options name, grouped by mesh, fewest devices first."""
    counts = [n for n in args.devices if n <= devices]
    found: list[Task] = []
    for n in counts:
        meshes = [(n, 1)] + [(1, n)] * (n > 1) + [(n // 2, 2)] * (n > 2)
        for data, model in meshes:
            if f"{data}x{model}" not in (args.meshes or [f"{data}x{model}"]):
                continue
            sizes = {b * data for b in args.batches}
            if not args.weak:
                sizes |= {b for b in args.totals if b % data == 0}
            rows = sorted(sizes) if model == 1 else [data]
            if n == 1 and not args.weak:
                rows = sorted({1, *rows})
            found.append(Task("codes", data, model, 5))
            found += [Task("decode", data, model, count) for count in rows]
            found.append(Task("first_audio", data, model, 1))
            found += [Task("collectives", data, model, rows[-1])] * (n > 1)
            if model == 1:
                own = {args.train_rows * n}
                own = sorted(own if args.weak else own | {args.train_rows * max(counts)})
                axes = [(n, 1), (1, n)] if n > 1 else [(1, 1)]
                found += [Task("train", d, 1, r, fsdp) for d, fsdp in axes for r in own]
    return sorted((t for t in found if t.part in args.parts), key=lambda t: t.devices)


class Models:
    """Random models, one at a time: the last one is kept until another is built."""

    def __init__(self, size: str) -> None:
        self.size = size
        self._made: tuple[Any, QwenTTS] | None = None

    def on(self, task: Task, dtype: str) -> QwenTTS:
        """The model on the mesh of a task."""
        key = (task.data, task.model, dtype)
        if self._made is None or self._made[0] != key:
            self._made = None
            mesh = None if task.devices == 1 else make_mesh(task.data, task.model)
            self._made = key, build(self.size, jnp.dtype(dtype), mesh=mesh)
        return self._made[1]

    def drop(self) -> None:
        """Free the memory of the last model."""
        self._made = None


def measure(task: Task, models: Models, args: argparse.Namespace, one: dict[str, Any]) -> Any:
    """Figures of a task; `one` holds the codes of one device."""
    if task.part == "train":
        models.drop()
        return _train(task, args)
    if task.part == "codes":
        made = _codes(models.on(task, "float32"))
        if task.devices == 1:
            one["codes"] = made
        if "codes" not in one:
            one["codes"] = _codes(models.on(Task("codes", 1, 1, 5), "float32"))
        pairs = zip(made, one["codes"], strict=True)
        return {"differing": float(np.mean([np.mean(a != b) for a, b in pairs]))}
    before = _peak_bytes()
    tts = models.on(task, args.dtype)
    if task.part == "first_audio":
        return {"ms": first_audio_ms(tts, 5)}
    if task.part == "collectives":
        return {"share": _collective_share(tts, task.rows)}
    frames = 64 if args.size != "tiny" else 32
    ms = steady_ms(tts, task.rows, BATCH_CHUNK, frames)
    peak = _peak_bytes()
    return {
        "ms_per_frame": ms,
        "audio_s_per_s": task.rows * FRAME_SECONDS / ms * 1e3,
        # The peak is that of the process: unknown where an earlier task needed more.
        "peak_gb_a_device": peak / 1e9 if peak > before else None,
    }


def _peak_bytes() -> int:
    """The most memory that this process has used on the first device; 0 where it is not known."""
    memory = jax.devices()[0].memory_stats() or {}
    return int(memory.get("peak_bytes_in_use", 0))


def _codes(tts: QwenTTS) -> list[np.ndarray]:
    requests = [request(tts, seed, CODES_FRAMES - 1) for seed in range(5)]
    return generate_codes(Session(tts.config, tts.params, requests))


def _train(task: Task, args: argparse.Namespace) -> dict[str, Any]:
    """`experiments.bench.train` on a mesh."""
    settings = argparse.Namespace(
        size=args.size,
        positions=args.positions,
        rows=task.rows // (task.data * task.fsdp),
        accumulate=1,
        predictor_frames=None,
        predictor_chunk=4096,
        remat="none",
        attention="auto",
        predictor_attention="auto",
        dtype=args.dtype,
        data=task.data,
        fsdp=task.fsdp,
        steps=args.steps,
    )
    found = train.measure(settings)
    kept = ("step_s", "positions_per_s", "speech_s_per_s", "share_of_peak", "peak_gb", "compile_s")
    return {name: found[name] for name in kept}


def _collective_share(tts: QwenTTS, rows: int) -> float | None:
    """Share of the devices' busy span in which collectives run, while four chunks are decoded."""
    stream = start(tts, range(rows), 8 * BATCH_CHUNK)
    run_stream(stream, 2, BATCH_CHUNK)
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            run_stream(stream, 4, BATCH_CHUNK)
        files = list(Path(directory).rglob("*.xplane.pb"))
        shares = [share for file in files for share in _device_shares(file)]
    return float(np.mean(shares)) if shares else None


def _device_shares(file: Path) -> Iterator[float]:
    """The share of each device in a profile; a device without events has none."""
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        if not plane.name.startswith("/device:") or "CPU" in plane.name:
            continue
        lines = [x for x in plane.lines if x.name.startswith(("Stream", "XLA Ops"))]
        events = [event for line in lines for event in line.events]
        if not events:
            continue
        span = max(e.end_ns for e in events) - min(e.start_ns for e in events)
        names = [(e.name.lower(), e.duration_ns) for e in events]
        yield sum(ns for name, ns in names if any(c in name for c in COLLECTIVES)) / span


def run(args: argparse.Namespace) -> None:
    """Measure what the result file lacks, until `--limit` seconds have passed."""
    end, devices = time.monotonic() + args.limit, jax.devices()
    header = {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "settings": {"size": args.size, "dtype": args.dtype, "positions": args.positions},
    }
    rows = _known(args.out, header)
    models, one = Models(args.size), {}
    for task in tasks(args, len(devices)):
        settings = dataclasses.asdict(task)
        known = [row for row in rows if row["task"] == settings and "error" not in row]
        if known:
            continue
        if time.monotonic() > end:
            print(f"stopped: {args.limit:g} s are over; the same command goes on from here")
            break
        started = time.perf_counter()
        try:
            found = measure(task, models, args, one)
        except Exception as error:  # such as too little memory: the next task may have enough
            found = {"error": f"{type(error).__name__}: {error}"[:300]}
            models.drop()
        row = {"task": settings, **found, "took_s": time.perf_counter() - started}
        print(json.dumps(row), flush=True)
        rows = write_row(args.out, header, row, args.note)


def write_row(
    path: Path, header: dict[str, Any], row: dict[str, Any], note: str | None = None
) -> list[dict[str, Any]]:
    """Put a row into the result file, beside those that other commands have written meanwhile.

    Args:
        note: for the table, with the row.

    Returns:
        all rows, in the order of `tasks`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (Path(tempfile.gettempdir()) / f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        row = row if note is None else row | {"note": note}
        rows = [r for r in _known(path, header) if r["task"] != row["task"]]
        rows = sorted([*rows, row], key=lambda r: Task(**r["task"]).devices)
        write_whole(path, (json.dumps(header | {"rows": rows}, indent=1) + "\n").encode())
    return rows


def _known(path: Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a result file, none where it is of other devices, versions or settings."""
    before = json.loads(path.read_text()) if path.exists() else {}
    same = all(before.get(name) == value for name, value in header.items())
    return before["rows"] if before and same else []


def render(results: dict[str, Any]) -> str:
    """Markdown of result files by name."""
    return "\n".join([INTRODUCTION, *(_section(n, r) for n, r in sorted(results.items()))])


def _section(name: str, result: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    settings = ", ".join(f"{k} {v}" for k, v in result["settings"].items())
    lines = [f"## {result['devices']} x {result['device']}", ""]
    lines += [f"`{name}`: {versions}; {settings}.", ""]
    head = "part | mesh (data x model) | rows | figures | weak efficiency | strong efficiency"
    lines += [f"| {head} |", "| " + " | ".join(["---"] * 6) + " |"]
    for row in result["rows"]:
        task = Task(**row["task"])
        mesh = f"{task.data}x{task.model}{f' fsdp {task.fsdp}' if task.fsdp > 1 else ''}"
        cells = [task.part, mesh, str(task.rows), _figures(row)]
        cells += _efficiencies(task, row, result["rows"])
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


FIGURES = {
    "differing": "{:.3g} of the codes differ",
    "ms_per_frame": "{:.3g} ms a frame",
    "audio_s_per_s": "{:.4g} s of audio a second",
    "peak_gb_a_device": "{:.3g} GB on the first device",
    "ms": "{:.3g} ms",
    "share": "{:.1%} of the time",
    "step_s": "{:.3g} s a step",
    "positions_per_s": "{:.4g} positions a second",
    "share_of_peak": "{:.1%} of the peak",
    "peak_gb": "{:.3g} GB on the first device",
}


def _figures(row: dict[str, Any]) -> str:
    if "error" in row:
        return row["error"].splitlines()[0]
    found = [text.format(row[k]) for k, text in FIGURES.items() if row.get(k) is not None]
    text = ", ".join(found) or "not available on this device"
    return f"{text}; {row['note']}" if "note" in row else text


def _efficiencies(task: Task, row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Speed over that of one device with as many rows a device, and with as many rows in all."""
    name = {"decode": "audio_s_per_s", "train": "positions_per_s"}.get(task.part)
    out = []
    for count in (task.rows // (task.data * task.fsdp), task.rows):
        one = dataclasses.asdict(Task(task.part, 1, 1, count))
        base = next((r[name] for r in rows if r["task"] == one and name in r), None)
        known = name in row and base and task.devices > 1
        out.append(f"{row[name] / base / task.devices:.2f}" if known else "")
    return out


def main() -> None:
    """Measure and tabulate."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument(
        "--size", default="0.6B", choices=("0.6B", "1.7B", "tiny"), help="of the model"
    )
    parser.add_argument("--parts", type=_parts, default=list(PARTS), help="by comma")
    parser.add_argument(
        "--devices", type=_numbers, default=[1, 2, 4, 8], help="as far as there are so many"
    )
    parser.add_argument("--meshes", type=lambda t: t.split(","), help="only these, such as 4x1,1x4")
    parser.add_argument("--batches", type=_numbers, default=[256], help="rows a device of data")
    parser.add_argument("--totals", type=_numbers, default=[256], help="rows of all devices")
    parser.add_argument("--train-rows", type=int, default=2, help="rows a device")
    parser.add_argument("--weak", action="store_true", help="weak scaling alone, and no latency")
    parser.add_argument("--positions", type=int, default=8192, help="of a training row")
    parser.add_argument("--steps", type=int, default=5, help="timed training steps")
    parser.add_argument("--dtype", default="bfloat16", help="of weights and activations")
    parser.add_argument("--cpu-devices", type=int, help="virtual CPU devices instead of others")
    parser.add_argument("--note", help="circumstances of the rows, shown in the table")
    parser.add_argument("--limit", type=float, default=480, help="begin nothing after seconds")
    parser.add_argument("--cache", type=Path, default=Path(".jax_cache"), help="of programs")
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_sharded.json", help="results")
    parser.add_argument("--table", action="store_true", help="only write the table")
    args = parser.parse_args()
    if args.table:
        files = sorted(RESULTS.glob("bench_sharded*.json"))
        results = {path.name: json.loads(path.read_text()) for path in files}
        (RESULTS / "sharded.md").write_text(render(results))
        return
    # JAX reserves 75 % of device memory by default; a large batch needs more.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.93")
    if args.cpu_devices:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", args.cpu_devices)
    else:  # programs of several virtual CPU devices must not come from a cache (JAX 0.10.2)
        jax.config.update("jax_compilation_cache_dir", str(args.cache.absolute()))
    run(args)


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def _parts(text: str) -> list[str]:
    found = text.split(",")
    if unknown := sorted(set(found) - set(PARTS)):
        raise argparse.ArgumentTypeError(f"{unknown} are not among {PARTS}.")
    return found


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
