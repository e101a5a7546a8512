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
import statistics
import time
from typing import Any

import jax
import numpy as np

from experiments import command
from experiments.bench.training_step import begin, peak_gb
from experiments.bench.variants import measure_settings
from qtts_jax.configs.presets import tiny, tts_12hz
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.data.talker_examples import Bucket, collate, layout_example
from qtts_jax.generation.prompt import SpeakerCondition, build_prompt
from qtts_jax.training.mesh import MeshConfig, TrainingMesh
from qtts_jax.training.optimizer import OptimizerConfig
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
    mesh = TrainingMesh(MeshConfig(data=args.data, fsdp=args.fsdp))
    begun = begin(task, rules, mesh, args.accumulate)
    state, parameters_m = begun.state, begun.parameters_m()
    rows = args.rows * args.accumulate * mesh.devices
    host = make_batch(config, rows, args.positions)
    frames = int(host["frames"][0])
    batch = jax.tree.map(lambda x: x[0], mesh.put([host], args.accumulate))
    compiled, compile_s = begun.compiled(batch)
    seconds, losses = [], []
    for _ in range(args.steps + 2):
        started = time.perf_counter()
        state, metrics = compiled(state, batch)
        losses.append(float(metrics["loss"]))
        seconds.append(time.perf_counter() - started)
    step_s = statistics.median(seconds[2:])
    flops = rows * talker_flops(config, args.positions, frames, args.predictor_frames)
    peak = peak_flops()
    return {
        "device": jax.devices()[0].device_kind,
        "devices": mesh.mesh.size,
        "parameters_m": parameters_m,
        "rows": rows,
        "frames_of_a_row": frames,
        "compile_s": compile_s,
        "step_s": step_s,
        "positions_per_s": rows * args.positions / step_s,
        "speech_s_per_s": rows * frames * FRAME_SECONDS / step_s,
        "model_tflop_per_step": flops / 1e12,
        "tflop_per_s": flops / step_s / 1e12,
        "share_of_peak": None if peak is None else flops / step_s / (peak * mesh.mesh.size),
        "peak_gb": peak_gb(),
        "losses": [losses[0], losses[-1]],
    }


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
    parser.add_argument("--fsdp", type=int, default=1, help="devices that split parameters, too")
    parser.add_argument("--steps", type=int, default=10, help="steps of the median")
    measure_settings(parser, "experiments.bench.train", measure)


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
