"""CPU speed at released sizes, beside the official package when it is installed.

    pip install qwen-tts      # or, from another environment, --official-python PATH
    python -m experiments.bench.cpu --out experiments/results/bench_cpu.NAME.json

Float32, random weights (of bfloat16 values, like the released ones), two cores, batch 1: decoding
125 and 26 frames of 12 Hz codes, encoding 10 s of audio, and one frame of talker and code predictor
(0.6B, sampled, prompt of 51 positions, codes only: the difference of two lengths, so that the
prompt does not count). Each package runs in a process of its own and both take turns, so that
whatever else the machine does meets both; the figures are medians. `least` is what a measure would
take if float32 products, or the reading of weights, ran as fast as a large product, or the sum of a
large array, on this processor. Goals: decoding, encoding and a frame in at most 0.45, 0.6 and 0.5
of the official package's time. Without the official package only ours is measured. About five
minutes, and memory for both (10 GB).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command
from qtts_jax.errors import EvaluationError

SECONDS, RATE, CODEBOOKS = 10, 24000, 16
# The prompt of a preset speaker with a language has this many positions beside its text.
PROMPT_TEXT = 40
MEASURES = ("decode_125_frames_s", "decode_26_frames_s", "encode_10_s_s", "frame_0.6B_s")
GOALS = dict(zip(MEASURES, (0.45, None, 0.6, 0.5), strict=True))


def timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def per_frame(generate: Callable[[int], Any], frames: int) -> float:
    """Seconds a frame: `generate(n)` makes n frames from a prompt."""
    short = timed(lambda: generate(1))
    return (timed(lambda: generate(frames + 1)) - short) / frames


def codec_inputs() -> tuple[np.ndarray, np.ndarray]:
    """Codes [125, 16] and samples [240000], the same for both packages."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2048, (125, CODEBOOKS), dtype=np.int64)
    return codes, (0.1 * rng.standard_normal(SECONDS * RATE)).astype(np.float32)


def ours(size: str, frames: int) -> tuple[dict[str, Any], dict[str, Callable[[], Any]]]:
    """Versions of this package, its measures, and their least seconds (`bounds`)."""
    import jax
    import jax.numpy as jnp

    from experiments.bench.cpu_bounds import bounds
    from experiments.bench.random_models import build
    from experiments.bench.streams import request
    from qtts_jax.generation.session import Session, generate_codes

    tts = build("tiny" if size == "tiny" else "0.6B", jnp.float32, released=True)
    codes, samples = codec_inputs()

    def generate(n: int) -> None:
        made = generate_codes(Session(tts.config, tts.params, [request(tts, 0, n)]))
        assert len(made[0]) == n, "an utterance ended early"

    codec = tts.speech_tokenizer
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    return versions, {
        "bounds": lambda: bounds(tts),
        "decode_125_frames_s": lambda: timed(lambda: codec.decode(codes)),
        "decode_26_frames_s": lambda: timed(lambda: codec.decode(codes[:26])),
        "encode_10_s_s": lambda: timed(lambda: codec.encode(samples, RATE)),
        "frame_0.6B_s": lambda: per_frame(generate, frames),
    }


def official(size: str, frames: int) -> tuple[dict[str, Any], dict[str, Callable[[], float]]]:
    """Versions of the official package and its measures."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers
    from qwen_tts.core import Qwen3TTSTokenizerV2Config, Qwen3TTSTokenizerV2Model
    from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration

    from qtts_jax.configs.presets import tiny, tiny_tokenizer, tokenizer_12hz, tts_12hz

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    config, speech = tts_12hz("0b6", "custom_voice"), tokenizer_12hz()
    if size == "tiny":
        config, speech = tiny(config), tiny_tokenizer(speech)
    codec = Qwen3TTSTokenizerV2Model(Qwen3TTSTokenizerV2Config(**speech.to_hf())).eval()
    model = Qwen3TTSForConditionalGeneration(Qwen3TTSConfig(**config.to_hf())).eval()
    for name, tensor in codec.state_dict().items():
        if name.endswith(("embedding_sum", "embed_sum")):  # codebooks, zeros at first
            tensor.normal_()
    ids, audio = codec_inputs()
    codes, samples = torch.from_numpy(ids)[None], torch.from_numpy(audio)[None]
    mask = torch.ones_like(samples, dtype=torch.long)
    # Three ids of the role before the text and five of the template after it.
    ids = torch.randint(0, 1000, (1, 3 + PROMPT_TEXT + 5))

    def generate(n: int) -> None:
        model.generate(
            input_ids=[ids],
            languages=["english"],
            speakers=["ryan"],
            non_streaming_mode=True,
            max_new_tokens=n + 1,
            eos_token_id=10**6,  # never
        )

    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return versions, {
        "decode_125_frames_s": lambda: timed(lambda: codec.decode(codes)),
        "decode_26_frames_s": lambda: timed(lambda: codec.decode(codes[:, :26])),
        "encode_10_s_s": lambda: timed(lambda: codec.encode(samples, mask)),
        "frame_0.6B_s": lambda: per_frame(generate, frames),
    }


def serve(side: str, size: str, frames: int, cores: int) -> None:
    """Run each measure named on stdin and print its seconds as JSON; first the versions."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    # Libraries may print to stdout; results use a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    versions, measures = (ours if side == "ours" else official)(size, frames)
    print(json.dumps(versions), file=answers)
    for line in sys.stdin:
        print(json.dumps(measures[line.strip()]()), file=answers)


class Side:
    """One package in a process of its own."""

    def __init__(self, name: str, python: str, args: argparse.Namespace) -> None:
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
        argv = [python, "-m", "experiments.bench.cpu", "--serve", name, "--size", args.size]
        argv += ["--frames", str(args.frames), "--cores", str(args.cores)]
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        )
        self.name, self.versions = name, self._answer()

    def measure(self, name: str) -> Any:
        """Seconds of one measure, or the dictionary of `bounds`."""
        assert self._process.stdin is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        found = self._answer()
        print(f"{name}: {self.name} {found}", file=sys.stderr, flush=True)
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EvaluationError(f"the {self.name} process ended; see its message above.")
        return json.loads(line)


def cpu_name() -> str:
    """The processor as Linux names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def compare(sides: list[Side], measures: list[str], repeats: int) -> dict[str, Any]:
    """All figures: the sides take turns, `repeats` times after one unmeasured turn each."""
    out: dict[str, Any] = {}
    for name in measures:
        for side in sides:
            side.measure(name)
        turns = [{side.name: side.measure(name) for side in sides} for _ in range(repeats)]
        row: dict[str, Any] = {
            side.name: statistics.median(turn[side.name] for turn in turns) for side in sides
        }
        if len(sides) == 2:
            row["ratio"] = row["ours"] / row["official"]
            row["goal"] = GOALS[name]
        row["turns"] = turns
        out[name] = row
    return out


def main() -> None:
    """Measure and write."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument(
        "--size", choices=("released", "tiny"), default="released", help="of the models"
    )
    parser.add_argument("--measures", default=",".join(MEASURES), help="names, by comma")
    parser.add_argument("--frames", type=int, default=16, help="frames of talker and predictor")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each median")
    parser.add_argument("--cores", type=int, default=2, help="cores of a process")
    parser.add_argument("--official-python", help="an interpreter that has the official package")
    parser.add_argument(
        "--out", type=Path, help="JSON file for the results (default: only printed)"
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.size, args.frames, args.cores)
        return
    other = args.official_python
    if other is None and importlib.util.find_spec("qwen_tts") is not None:
        other = sys.executable
    sides = [Side("ours", sys.executable, args)]
    if other is None:
        print("note: the official package is not installed; ours alone", file=sys.stderr)
    else:
        sides.append(Side("official", other, args))
    measures = compare(sides, args.measures.split(","), args.repeats)
    least = sides[0].measure("bounds")
    for name in measures.keys() & least.keys():
        measures[name]["least"] = least[name]
    result = {
        "device": cpu_name(),
        "cores": args.cores,
        "dtype": "float32",
        "size": args.size,
        "load_at_end": os.getloadavg()[0],
        "versions": {side.name: side.versions for side in sides},
        "product_gflop_per_s": least["product_gflop_per_s"],
        "read_gb_per_s": least["read_gb_per_s"],
        "measures": measures,
    }
    for side in sides:
        side.close()
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
