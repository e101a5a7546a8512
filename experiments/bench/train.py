"""Training speed of the talker at released sizes: random weights, random codes, bfloat16.

    python -m experiments.bench.train --rows 2 --out experiments/results/bench_train.NAME.json

One row of a batch is a prompt and its frames, 8,192 positions in all by default; every frame
trains the code predictor unless `--predictor-frames` says fewer. Reported: seconds a step, tokens
(positions of the talker) and seconds of speech a second, and the share of the device's peak bf16
FLOP/s. `--size tiny --positions 256 --steps 3` runs on a CPU in a minute.

Model FLOPs (`training/talker/flops.py`): two per matrix weight and position, and four per query,
visible key and head channel, over all layers of talker and code predictor, text projection and
heads; the backward pass counts twice the forward pass. Norms, rotary embeddings, softmax,
embeddings, the optimizer and recomputation (rematerialisation, fused attention) count no FLOPs,
only time. Padding positions count; the benchmark has none.

Several settings, each in a new process, within a time limit:

    python -m experiments.bench.train --limit 240 --out FILE \
        --variants "rows=2" "rows=4" "rows=2 predictor-attention=plain"

FILE then holds a list of results under "runs", and is written anew after each. A variant that
fails, such as one that needs more memory than there is, leaves the reason and does not stop the
others. About a minute of each is compilation.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import command
from qtts_jax.configs.presets import tiny, tts_12hz
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.data.talker_examples import Bucket, collate, layout_example
from qtts_jax.generation.prompt import SpeakerCondition, build_prompt
from qtts_jax.training.mesh import MeshConfig, TrainingMesh
from qtts_jax.training.optimizer import OptimizerConfig, optimizer
from qtts_jax.training.state import first_state, state_shardings
from qtts_jax.training.step import make_step
from qtts_jax.training.talker.flops import peak_flops, talker_flops
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig

SIZES = {"0.6B": "0b6", "1.7B": "1b7"}
TEXT = 256
FRAME_SECONDS = 0.08


def make_batch(config: TTSConfig, rows: int, positions: int) -> dict[str, Any]:
    """Rows of text and random codes that fill `positions` exactly."""
    rng = np.random.default_rng(0)
    text = min(TEXT, positions // 4)
    examples = []
    for _ in range(rows):
        ids = rng.integers(0, 1000, text).tolist()
        prompt = build_prompt(config, [1, 2, 3], ids, voice=SpeakerCondition())
        shape = (positions - len(prompt), config.talker.codebooks)
        examples.append(layout_example(config, prompt, rng.integers(0, 2048, shape)))
    return collate(config, examples, Bucket(positions, len(examples[0].codes)))


def model_config(size: str) -> TTSConfig:
    """A model without the speaker encoder, which takes a small share of the time."""
    config = tts_12hz(SIZES.get(size, "0b6"), "base")
    config = tiny(config) if size == "tiny" else config
    return dataclasses.replace(config, model_type="voice_design", speaker_encoder=None)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time `args.steps` steps after the compiled first ones."""
    config = model_config(args.size)
    task = TalkerTask(
        TalkerTaskConfig(
            config,
            dtype=args.dtype,
            predictor_frames=args.predictor_frames,
            predictor_chunk=args.predictor_chunk,
            remat=args.remat,
            attention=args.attention,
            predictor_attention=args.predictor_attention,
        )
    )
    rules = {name: OptimizerConfig(1e-4) for name in ("talker", "code_predictor")}
    updates = {name: optimizer(rule) for name, rule in rules.items()}
    mesh = TrainingMesh(MeshConfig(data=args.data, fsdp=args.fsdp))

    def begin() -> Any:
        params, extras = task.init(jax.random.key(0))
        return first_state(params, extras, updates, jax.random.key(1), False)

    shapes = jax.eval_shape(begin)
    shardings = state_shardings(mesh, task, updates, shapes)
    state = jax.jit(begin, out_shardings=shardings)()
    rows = args.rows * args.accumulate * args.data
    host = make_batch(config, rows, args.positions)
    frames = int(host["frames"][0])
    batch = jax.tree.map(lambda x: x[0], mesh.put([host], args.accumulate))
    step = jax.jit(
        make_step(task, rules, updates, args.accumulate, None),
        donate_argnums=0,
        out_shardings=(shardings, mesh.replicated),
    )
    started = time.perf_counter()
    compiled = step.lower(state, batch).compile()
    compile_s = time.perf_counter() - started
    seconds, losses = [], []
    for _ in range(args.steps + 2):
        started = time.perf_counter()
        state, metrics = compiled(state, batch)
        losses.append(float(metrics["loss"]))
        seconds.append(time.perf_counter() - started)
    step_s = statistics.median(seconds[2:])
    flops = rows * talker_flops(config, args.positions, frames, args.predictor_frames)
    peak = peak_flops()
    memory = jax.devices()[0].memory_stats() or {}
    return {
        "device": jax.devices()[0].device_kind,
        "devices": args.data,
        "parameters_m": sum(x.size for x in jax.tree.leaves(shapes.params)) / 1e6,
        "rows": rows,
        "frames_of_a_row": frames,
        "compile_s": compile_s,
        "step_s": step_s,
        "positions_per_s": rows * args.positions / step_s,
        "speech_s_per_s": rows * frames * FRAME_SECONDS / step_s,
        "model_tflop_per_step": flops / 1e12,
        "tflop_per_s": flops / step_s / 1e12,
        "share_of_peak": None if peak is None else flops / step_s / (peak * args.data),
        "peak_gb": memory.get("peak_bytes_in_use", 0) / 1e9 or None,
        "losses": [losses[0], losses[-1]],
    }


def run_variants(variants: list[str], limit: float, given: list[str], out: Path | None) -> None:
    """Measure each variant in a process of its own, and write all results after each."""
    end, runs = time.monotonic() + limit, []
    for variant in variants:
        left = end - time.monotonic()
        if left <= 0:
            runs.append({"variant": variant, "error": f"not run: the limit of {limit:g} s is over"})
        else:
            print(f"{variant}: {left:.0f} s left", flush=True)
            runs.append({"variant": variant, **_run_variant(variant, left, given)})
        print(json.dumps(runs[-1]), flush=True)
        if out:
            _write(out, {"runs": runs})


def _run_variant(variant: str, seconds: float, given: list[str]) -> dict[str, Any]:
    pairs = [pair.split("=", 1) for pair in variant.split()]
    options = [word for name, *value in pairs for word in (f"--{name}", *value)]
    with tempfile.TemporaryDirectory() as directory:
        found = Path(directory) / "result.json"
        argv = [
            sys.executable,
            "-m",
            "experiments.bench.train",
            *given,
            *options,
            "--out",
            str(found),
        ]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"error": f"stopped after {seconds:.0f} s"}
        if done.returncode == 0:
            return json.loads(found.read_text())
    # The last line that names an error has the reason; JAX adds advice below it.
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
    return {"error": next((x for x in reversed(lines) if "rror" in x), lines[-1])[:500]}


def _write(out: Path, result: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    """Measure and write."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument(
        "--size", default="0.6B", choices=("0.6B", "1.7B", "tiny"), help="of the model"
    )
    parser.add_argument("--positions", type=int, default=8192, help="of a row")
    parser.add_argument("--rows", type=int, default=1, help="rows of a microbatch per device")
    parser.add_argument("--accumulate", type=int, default=1, help="microbatches of a step")
    parser.add_argument(
        "--predictor-frames",
        type=int,
        help="frames of a row that train the code predictor (default: all)",
    )
    parser.add_argument(
        "--predictor-chunk", type=int, default=4096, help="frames of a chunk of its loss"
    )
    parser.add_argument(
        "--remat", default="none", choices=("none", "blocks", "products"), help="rematerialisation"
    )
    parser.add_argument(
        "--attention",
        default="auto",
        choices=("auto", "plain", "cudnn"),
        help="kernel of the talker",
    )
    parser.add_argument(
        "--predictor-attention",
        default="auto",
        choices=("auto", "plain", "frames"),
        help="kernel of the code predictor",
    )
    parser.add_argument("--dtype", default="bfloat16", help="of the computation")
    parser.add_argument("--data", type=int, default=1, help="devices of data parallelism")
    parser.add_argument("--fsdp", action="store_true", help="shard parameters over the devices")
    parser.add_argument("--steps", type=int, default=10, help="steps of the median")
    parser.add_argument(
        "--variants",
        nargs="+",
        metavar="OPTIONS",
        help='settings to compare, such as "rows=2 remat=blocks"',
    )
    parser.add_argument("--limit", type=float, default=540, help="seconds for all variants")
    parser.add_argument(
        "--out", type=Path, help="JSON file for the results (default: only printed)"
    )
    args = parser.parse_args()
    # JAX reserves 75 % of device memory by default; a large batch needs more.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.93")
    own = ("variants", "limit", "out")
    settings = {name: value for name, value in vars(args).items() if name not in own}
    if args.variants:
        given = []
        for name, value in settings.items():
            if value != parser.get_default(name):
                option = f"--{name.replace('_', '-')}"
                given += [option] if value is True else [option, str(value)]
        run_variants(args.variants, args.limit, given, args.out)
        return
    result = {
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "settings": settings,
        **measure(args),
    }
    print(json.dumps(result, indent=1))
    if args.out:
        _write(args.out, result)


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
