"""Decode speed at released sizes: random weights built on the device, sampled, codec included.

    python -m experiments.bench.decode --out experiments/results/bench_decode.NAME.json

About twelve minutes a size on an H100, most of it compilation. The work may be split over several
calls (`--sizes`, `--parts`): figures that the file already has are kept, those of an interrupted
call included. `--sizes 0.6B --parts full --batches 1 --quick` is the shortest useful run.

Random weights cost what trained ones do; the end of speech is made impossible so that every run
has its full length. Prompts have 51 positions, sampling is the released default (top-k 50 in both
heads, repetition penalty 1.05). Steady figures are medians of three. For each size:

- ms_per_frame_b1, codec_step_ms: batch 1, chunks of 4 frames, audio on the host; the codec alone.
- first_audio_ms: text string in, first float32 chunk (one frame) on the host, warm.
- audio_s_per_s: seconds of audio a second for every batch size, chunks of 16 frames (batch 1: 4).
- bandwidth_share_b1: weight bytes of a frame over its time, against a large copy on this device.
- late_over_early: ms a frame at frame 7,400 over frame 100 of one utterance of ten minutes.
- peak_gb_b1: peak device memory; build_peak_gb while the weights are made, weights_gb of the
  weights, temporaries_gb_b1 of the compiled chunk beside its weights and state.
- ..._int8, ..._fp8, ..._int4: the same and ms_per_frame_b1 in processes with such weights
  (`--parts int4` alone: three minutes a size).
- compile_cold_s, compile_cached_s: first two chunks in an empty and a filled compilation cache.
- parts_ms_b1: where the time of a frame goes.
- differing_codes: see `decode_figures.differing_codes`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments import command
from experiments.bench.decode_figures import (
    bandwidth,
    bytes_per_frame,
    codec_step_ms,
    differing_codes,
    late_over_early,
    memory_gb,
    parts_ms,
    peak_gb,
    temporaries_gb,
)
from experiments.bench.random_models import build
from experiments.bench.streams import (
    BATCH_CHUNK,
    CHUNK,
    FRAME_SECONDS,
    first_audio_ms,
    run_stream,
    start,
    steady_ms,
    timed,
)
from qtts_jax import QwenTTS
from qtts_jax.layers import dispatch
from qtts_jax.layers.quantized_weights import STORED

MEMORY = ("build_peak_gb", "weights_gb", "peak_gb_b1", "temporaries_gb_b1")
LATE = 7400
# Processes per size: full weights, smaller weights at batch 1, an utterance of ten minutes.
PARTS = ("full", *STORED, "late")


class Report(dict[str, Any]):
    """Figures that are printed and saved when they are set."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def __setitem__(self, name: str, value: Any) -> None:
        print(f"{name}: {value}", file=sys.stderr, flush=True)
        super().__setitem__(name, value)
        self.path.write_text(json.dumps(self))


def measure(size: str, part: str, args: argparse.Namespace, out: Report) -> None:
    """The figures of a size that belong to one of `PARTS`."""
    out["device"] = str(jax.devices()[0].device_kind)
    started = time.perf_counter()
    tts = build(size, jnp.dtype(args.dtype), part if part in STORED else None)
    out["build_s"] = time.perf_counter() - started
    out["build_peak_gb"], out["weights_gb"] = memory_gb("peak_bytes_in_use", "bytes_in_use")
    if part == "late":
        for name, value in late_over_early(tts, LATE).items():
            out[name] = value
        return
    frames = 64 if args.quick else 256
    out["compile_cold_s"] = timed(lambda: run_stream(start(tts, range(1), 64), 2, CHUNK))
    out["ms_per_frame_b1"] = steady_ms(tts, 1, CHUNK, frames)
    out["peak_gb_b1"] = peak_gb()
    out["temporaries_gb_b1"] = temporaries_gb(tts)
    out["bytes_per_frame"] = bytes_per_frame(tts)
    if part == "full":
        measure_full(tts, args, out)
    out["bandwidth_gb_per_s"] = bandwidth() / 1e9


def measure_full(tts: QwenTTS, args: argparse.Namespace, out: Report) -> None:
    """The figures that only the part `full` has."""
    out["first_audio_ms"] = first_audio_ms(tts, 5 if args.quick else 20)
    out["codec_step_ms"] = codec_step_ms(tts, 1, CHUNK)
    throughput: dict[int, float] = {}
    for rows in [int(b) for b in args.batches.split(",")]:
        ms = out["ms_per_frame_b1"] if rows == 1 else steady_ms(tts, rows, BATCH_CHUNK, 64)
        throughput[rows] = rows * FRAME_SECONDS / (ms / 1e3)
        out["audio_s_per_s"] = throughput
        out["peak_gb"] = peak_gb()
    if args.quick:
        return
    out["differing_codes"] = differing_codes(tts, 64)
    out["parts_ms_b1"] = parts_ms(tts, out["ms_per_frame_b1"], out["codec_step_ms"])
    jax.clear_caches()
    out["compile_cached_s"] = timed(lambda: run_stream(start(tts, range(1), 64), 2, CHUNK))


def profile(size: str, directory: Path, dtype: Any) -> None:
    """Record four chunks of batch 1 for TensorBoard or Perfetto."""
    stream = start(build(size, dtype), range(1), 64)
    run_stream(stream, 4, CHUNK)
    with jax.profiler.trace(str(directory), create_perfetto_trace=True):
        run_stream(stream, 4, CHUNK)


def child(size: str, part: str, options: list[str], figures: Path, cache: str) -> None:
    """Measure in a new process, so that peak memory is that of one size and storage."""
    argv = [sys.executable, "-m", "experiments.bench.decode", *options]
    argv += ["--one", size, part, str(figures)]
    env = dict(os.environ) | {"JAX_COMPILATION_CACHE_DIR": cache}
    subprocess.run(argv, check=True, env=env)


def merge(figures: dict[str, Any], part: str, new: dict[str, Any]) -> dict[str, Any]:
    """Add the figures of a part to those of a size."""
    new = {k: v for k, v in new.items() if k != "device"}
    if part in STORED:
        shared = ("ms_per_frame_b1", "bytes_per_frame", *MEMORY)
        new = {f"{k}_{part}": v for k, v in new.items() if k in shared} | {
            k: new[k] for k in new if k.startswith("bandwidth")
        }
    if part == "late":
        new.pop("build_s", None)
    speeds = figures.get("audio_s_per_s", {}) | new.get("audio_s_per_s", {})
    figures = figures | new | ({"audio_s_per_s": speeds} if speeds else {})
    if {"bandwidth_gb_per_s", "bytes_per_frame", "ms_per_frame_b1"} <= figures.keys():
        rate = figures["bytes_per_frame"] / figures["ms_per_frame_b1"] / 1e6
        figures["bandwidth_share_b1"] = rate / figures["bandwidth_gb_per_s"]
    return figures


def main() -> None:
    """Measure and write."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--sizes", default="0.6B,1.7B", help="model sizes, by comma")
    parser.add_argument("--batches", default="1,8,32,64,128,256", help="batch sizes, by comma")
    parser.add_argument("--dtype", default="bfloat16", help="of the weights")
    parser.add_argument(
        "--backend",
        choices=("plain", "triton"),
        help="decode kernels (default: chosen by the package)",
    )
    parser.add_argument("--quick", action="store_true", help="fewer frames and figures")
    parser.add_argument("--parts", default=",".join(PARTS), help="parts of the work, by comma")
    parser.add_argument("--out", type=Path, help="results (default: bench_decode.json)")
    parser.add_argument("--profile", type=Path, help="write a profile of batch 1 there and stop")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    dispatch.override = args.backend
    if args.one:
        size, part, figures = args.one
        measure(size, part, args, Report(Path(figures)))
        return
    if args.profile:
        profile(args.sizes.split(",")[0], args.profile, jnp.dtype(args.dtype))
        return
    result: dict[str, Any] = {
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "flags": os.environ.get("XLA_FLAGS", ""),
        "dtype": args.dtype,
        "backend": args.backend or "chosen by the package",
    }
    out = args.out or Path("bench_decode.json")
    before = json.loads(out.read_text()) if out.exists() else {}
    kept = all(before.get(name) == value for name, value in result.items())
    sizes = result["sizes"] = before["sizes"] if before and kept else {}
    out.parent.mkdir(parents=True, exist_ok=True)

    def collect(path: Path) -> None:
        """Merge the figures of a process, perhaps an interrupted one."""
        size, part = path.name.removeprefix(f"{out.name}.").rsplit(".", 1)
        new = json.loads(path.read_text())
        result["device"] = new["device"]
        sizes[size] = merge(sizes.get(size, {}), part, new)
        out.write_text(json.dumps(result, indent=1) + "\n")
        path.unlink()

    for path in sorted(out.parent.glob(f"{out.name}.*")):
        collect(path)
    # A fresh cache: cold compile times are those of the part `full`, which comes first.
    with tempfile.TemporaryDirectory() as cache:
        for size in args.sizes.split(","):
            for part in filter(None, args.parts.split(",")):
                # This process never touches the device, most of whose memory it would take.
                path = out.parent / f"{out.name}.{size}.{part}"
                child(size, part, sys.argv[1:], path, cache)
                collect(path)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
