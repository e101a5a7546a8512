"""Compiles the package's programs for TPUs without a TPU, and tabulates what they would cost.

    pip install 'jax[tpu]'
    python -m experiments.bench.tpu_compile
    python -m experiments.bench.tpu_compile --programs frames --chips v5e,v6e --meshes 1x1,8x1 \
        --batches 1,8,64 --sizes 0.6B,1.7B
    python -m experiments.bench.tpu_compile --table

The first command compiles a default set (tens of seconds to minutes a program on an idle core), the
second every combination of its options, the third rewrites experiments/results/tpu.md from
experiments/results/tpu.json. Every finished program is a row of the JSON file at once; rows that it
has are not compiled again (`--again` does so). Sizes are the released ones, weights and activations
bfloat16, sampling the released default, prompts of 51 positions.

Meshes are data x model, in JAX devices; a chip of TPU7x has two of them. Nothing runs: memory,
FLOPs, collectives and cycles are those of the program that XLA:TPU compiled, and "cycles" are its
own estimate, without the time of collectives, of kernels written by hand, of sorts and of waiting
for HBM. libtpu admits one process at a time, unless ALLOW_MULTIPLE_LIBTPU_LOAD=1 is set.

Programs: prefill (a batch of prompts); frames (the frame loop, figures of one frame); chunk
(--frames frames and their audio); decode, encode (12 Hz codec, --frames frames); block_25hz (one
streaming block of the 25 Hz decoder); train (a training step of rows of --positions positions).
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import itertools
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Which TPU libtpu is to assume; without these variables it queries the network for it.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import jax

from experiments import command
from experiments.bench.tpu_hlo import Cost, program_cost
from experiments.bench.tpu_programs import CHIPS, FRAME_SECONDS, PROGRAMS, Case, Lowered, lower
from qtts_jax.errors import ConfigError

RESULTS = Path("experiments/results/tpu.json")
DEFAULT = (
    Case("frames"),
    Case("frames", batch=8),
    Case("frames", batch=64),
    Case("frames", size="1.7B"),
    Case("prefill"),
    Case("decode"),
    Case("encode"),
    Case("frames", data=2, model=4, layers=2),
    Case("frames", data=8, batch=1, layers=2),
)
INTRODUCTION = """# What the package's programs would cost on TPUs, by the compiler's word

Nothing ran on a TPU. XLA:TPU compiled each program for a topology, from shapes. Commands:

    python -m experiments.bench.tpu_compile
    python -m experiments.bench.tpu_compile --table

All figures are of one JAX device (a chip; half a chip of TPU7x), and of one frame of 80 ms for
`frames`, of one call for the others. Which figures come from where:

- **memory**: XLA's plan of the program: arguments, temporaries and code, against the device's HBM.
- **GFLOP**: matrix products, convolutions and sums of the compiled program, loops counted by their
  turns. **MB**: bytes accessed as XLA counts them, bodies of inner loops once (not comparable
  between programs with and without loops).
- **cycles ms**: the *compiler's estimate*, its `estimated_cycles` over a clock of 1.5 GHz (v5e) or
  1.75 GHz (v5p, v6e). It leaves out collectives, kernels written by hand, sorts (of top-k) and
  waiting for copies from HBM; a product that reads HBM itself is estimated with its reading.
- **floor ms**: a *roofline* from shapes: the longer of the least HBM bytes over the bandwidth and
  the least FLOPs over the peak, by the vendor's figures. For `frames` and `chunk` the bytes are the
  talker's weights once, the code predictor's once for each of its 15 codebooks, and the caches; for
  `prefill` the talker's weights; for the others all arguments and new results.
- **audio s/s**: seconds of audio a second and device at the longer of the two. An *upper bound from
  estimates*, not a measurement. Left out where the talker has fewer layers than released: such rows
  show what a mesh does, not how long a frame takes.
- **scatter turns**: turns of loops into which a scatter was expanded; 0 is what is wanted.
- **collectives**: number x bytes of the result by kind.
- **kernels**: written by hand, number x bytes that each moves; empty in rows made before them.
"""


def compile_case(case: Case, dump: Path | None) -> dict[str, Any]:
    """Figures of one compiled program, or the reason why there are none; its HLO to `dump`."""
    started = time.perf_counter()
    try:
        lowered = lower(case)
        compiled = lowered.lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "lockfile" in str(error):
            raise ConfigError(
                "another process uses libtpu, which admits one at a time: wait for its end, or set "
                "ALLOW_MULTIPLE_LIBTPU_LOAD=1."
            ) from error
        return {"error": str(error).strip().splitlines()[0][:300]} | _refused_memory(str(error))
    text = compiled.as_text()
    if dump is not None:
        dump.write_text(text)
    outside, inside = program_cost(text)
    return {
        "compile_s": round(time.perf_counter() - started, 1),
        "memory": (memory := _memory(compiled)),
        "fits": memory["total"] <= CHIPS[case.chip].hbm_gib * 2**30,
        **_counted(lowered, outside, inside),
        **_floor(lowered, memory, outside, inside),
        "xla_bytes_accessed": (compiled.cost_analysis() or {}).get("bytes accessed"),
    }


def _memory(compiled: Any) -> dict[str, int]:
    m = compiled.memory_analysis()
    parts = {
        "arguments": m.argument_size_in_bytes,
        "temporaries": m.temp_size_in_bytes,
        "new_results": m.output_size_in_bytes - m.alias_size_in_bytes,
        "code": m.generated_code_size_in_bytes,
    }
    return parts | {"total": sum(parts.values())}


def _refused_memory(message: str) -> dict[str, Any]:
    """Memory that a program needs which the compiler refused because it does not fit in HBM."""
    found = re.search(r"Used ([\d.]+)G of ([\d.]+)G hbm", message)
    return {"fits": False, "needs_gib": float(found.group(1))} if found else {}


def _counted(lowered: Lowered, outside: Cost, inside: Cost) -> dict[str, Any]:
    """Work of a call; of one frame where the frame loop is the whole program."""
    parts = (inside,) if lowered.frame_loop else (outside, inside)
    collectives: dict[tuple[str, int], int] = {}
    kernels: dict[int, int] = {}
    for size, count in itertools.chain(*(part.kernels.items() for part in parts)):
        kernels[size] = kernels.get(size, 0) + count
    for key, count in itertools.chain(*(part.collectives.items() for part in parts)):
        collectives[key] = collectives.get(key, 0) + count
    return {
        "frames": lowered.frames,
        "flops": sum(part.flops for part in parts),
        "estimated_cycles": sum(part.cycles for part in parts),
        "scatter_turns": sum(part.scatter_turns for part in parts),
        "collectives": [
            {"kind": kind, "bytes": size, "count": count}
            for (kind, size), count in sorted(collectives.items())
        ],
        "kernels": [{"bytes": size, "count": count} for size, count in sorted(kernels.items())],
    }


def _floor(
    lowered: Lowered, memory: dict[str, int], outside: Cost, inside: Cost
) -> dict[str, float]:
    """Least bytes and FLOPs of one device; see `Lowered`."""
    read, flops = lowered.floor_bytes, lowered.floor_flops
    return {
        "floor_bytes": memory["arguments"] + memory["new_results"] if read is None else read,
        "floor_flops": outside.flops + inside.flops if flops is None else flops,
    }


def versions() -> dict[str, str]:
    """Versions that decide what is compiled; `package` is the last commit that changed qtts_jax.

    Raises:
        ConfigError: libtpu is not installed.
    """
    try:
        found = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")}
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"compiling for TPUs needs the package {error.name}, which is not installed: "
            "`pip install 'jax[tpu]'` installs it."
        ) from error
    commit = _git("log", "-1", "--format=%h", "--", "qtts_jax")
    changed = _git("status", "--porcelain", "--", "qtts_jax")
    found["package"] = commit + (" and changes" if changed else "")
    return {"python": platform.python_version(), **found}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def run(cases: list[Case], args: argparse.Namespace) -> None:
    """Compile cases that the result file lacks, until `--limit` seconds have passed."""
    path: Path = args.out
    end, rows = time.monotonic() + args.limit, read(path)
    for case in cases:
        settings = dataclasses.asdict(case)
        known = [row for row in rows if row["case"] == settings]
        if known and not args.again:
            print(f"{settings}: in {path} already", flush=True)
            continue
        if time.monotonic() > end:
            print(f"stopped: {args.limit:g} s are over; the same command goes on from here")
            return
        made = {"case": settings, "versions": versions(), **compile_case(case, args.dump)}
        rows = [*(row for row in rows if row not in known), made]
        print(json.dumps(rows[-1]), flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a result file, or none."""
    return json.loads(path.read_text())["rows"] if path.exists() else []


def render(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown, a section for each program."""
    sections = [INTRODUCTION]
    head = [
        "chip, mesh",
        "size",
        "rows a device",
        "talker layers",
        "memory, GiB",
        "GFLOP",
        "MB",
        "cycles ms",
        "floor ms",
        "audio s/s",
        "scatter turns",
        "collectives",
        "kernels",
        "compiled by",
    ]
    for program in PROGRAMS:
        chosen = [row for row in rows if row["case"]["program"] == program]
        if not chosen:
            continue
        lines = [f"## {program}", "", _line(head), _line(["---"] * len(head))]
        order = ("chip", "size", "layers", "data", "model", "batch")
        chosen.sort(key=lambda row: [row["case"][name] for name in order])
        lines += [_line(_cells(row)) for row in chosen]
        sections.append("\n".join([*lines, ""]))
    return "\n".join(sections)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(row: dict[str, Any]) -> list[str]:
    case = Case(**row["case"])
    chip = CHIPS[case.chip]
    kind = {"decode": "codec", "encode": "codec", "block_25hz": "25 Hz codec"}
    names = [
        f"{case.chip}, {case.data}x{case.model}{f' fsdp {case.fsdp}' if case.fsdp > 1 else ''}",
        kind.get(case.program, case.size)
        + (f", {case.frames} frames" if case.program in ("chunk", "decode", "encode") else "")
        + (f", {case.positions} positions" if case.program == "train" else ""),
        str(case.batch),
        "" if case.program in kind else str(case.layers or "all"),
    ]
    by = ", ".join(f"{name} {row['versions'][name]}" for name in ("jax", "libtpu", "package"))
    if "error" in row:
        needs = f": needs {row['needs_gib']} GiB" if "needs_gib" in row else f": {row['error']}"
        return [*names, f"does not compile{needs}", *[""] * 8, by]
    total = row["memory"]["total"] / 2**30
    floor_ms = 1e3 * max(
        row["floor_bytes"] / (chip.hbm_gb_s * 1e9), row["floor_flops"] / (chip.tflops * 1e12)
    )
    cycles_ms = row["estimated_cycles"] / (chip.clock_ghz * 1e6) if chip.clock_ghz else None
    seconds = case.batch * row["frames"] * FRAME_SECONDS / case.model
    speed = seconds / max(floor_ms, cycles_ms or 0) * 1e3
    moved = [f"{c['count']} {c['kind']} x {_size(c['bytes'])}" for c in row["collectives"]]
    kernels = [f"{k['count']} x {_size(k['bytes'])}" for k in row.get("kernels", [])]
    return [
        *names,
        f"{total:.2f}{'' if row['fits'] else ' (does not fit)'}",
        _n(row["flops"] / 1e9),
        _n((row["xla_bytes_accessed"] or 0) / 1e6),
        f"{row['estimated_cycles'] / 1e6:.3g} M cycles" if cycles_ms is None else _n(cycles_ms),
        _n(floor_ms),
        _n(speed) if speed and cycles_ms is not None and not case.layers else "",
        str(row["scatter_turns"]),
        "; ".join(moved) or "none",
        "; ".join(kernels) if kernels or "kernels" not in row else "none",
        by,
    ]


def _n(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def _size(count: int) -> str:
    return f"{count} B" if count < 1024 else f"{count / 1024:.3g} KiB"


def chosen_cases(args: argparse.Namespace) -> list[Case]:
    """Every combination of the options, or the default set where no program is named."""
    if not args.programs:
        return list(DEFAULT)
    fixed = {"layers": args.layers, "capacity": args.capacity, "frames": args.frames}
    fixed |= {"positions": args.positions, "fsdp": args.fsdp}
    return [
        Case(program, chip, *mesh, size=size, batch=batch, **fixed)
        for program, chip, mesh, size, batch in itertools.product(
            args.programs, args.chips, args.meshes, args.sizes, args.batches
        )
    ]


def _names(known: Any) -> Any:
    def names(text: str) -> list[str]:
        found = text.split(",")
        if unknown := sorted(set(found) - set(known)):
            raise argparse.ArgumentTypeError(f"{unknown} are not among {sorted(known)}.")
        return found

    return names


def _meshes(text: str) -> list[tuple[int, int]]:
    pairs = [mesh.split("x") for mesh in text.split(",")]
    return [(int(data), int(model)) for data, model in pairs]


def main() -> None:
    """Compile and tabulate."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument(
        "--programs",
        type=_names(PROGRAMS),
        help="by comma; all options multiply (default: a chosen set)",
    )
    parser.add_argument("--chips", type=_names(CHIPS), default=["v5e"], help="by comma")
    parser.add_argument("--meshes", type=_meshes, default=[(1, 1)], help="such as 1x1,8x1,2x4")
    parser.add_argument(
        "--sizes", type=_names(("0.6B", "1.7B")), default=["0.6B"], help="of the talker"
    )
    parser.add_argument(
        "--batches",
        type=lambda text: [int(n) for n in text.split(",")],
        default=[1],
        help="rows of a device of the data axis",
    )
    parser.add_argument("--layers", type=int, default=0, help="of the talker; 0 for all")
    parser.add_argument("--capacity", type=int, default=0, help="of the caches, positions")
    parser.add_argument("--frames", type=int, default=4, help="of a chunk or codec call")
    parser.add_argument("--positions", type=int, default=2048, help="of a training row")
    parser.add_argument("--fsdp", type=int, default=1, help="devices that split a training state")
    parser.add_argument("--limit", type=float, default=3600, help="begin no program after seconds")
    parser.add_argument("--again", action="store_true", help="compile rows again that exist")
    parser.add_argument("--dump", type=Path, help="write the optimized HLO of the last program")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results; the table is beside it")
    args = parser.parse_args()
    if not args.table:
        run(chosen_cases(args), args)
    args.out.with_suffix(".md").write_text(render(read(args.out)))


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
