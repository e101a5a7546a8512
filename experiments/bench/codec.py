"""Speed of the two speech tokenizers: stream step, whole decode and encode by batch and length.

    python -m experiments.bench.codec --out experiments/results/bench_codec.NAME.json
    python -m experiments.bench.codec --table experiments/results/bench_codec.*.json

Released sizes (25 Hz: the consistent preset and the official class defaults, 10 points of the
flow with guidance), random weights, float32 (`--dtypes float32,bfloat16` for both). `--official`
measures the official 25 Hz decoder beside ours, on the same kind of device, when its package is
installed. Expected on an H100: a 12 Hz stream step at batch 1 in at most 1.0 ms a frame, and more
than ten times as much for a second of audio at 25 Hz, whose first packet also waits for twice the
codes. About 20 minutes, most of it compilation; `--size tiny --batches 1 --seconds 1` tries it.

Per family, dtype and batch: `step/CHUNK` ms a step and `first_packet_ms` (fresh decoder, codes on
the host to the first samples on the host), `decode/SECONDS` and `encode/SECONDS` seconds a call,
and the same as ms of work for one second of audio. Medians; the device is waited for each time.
`--table` writes experiments/results/codec_cost.md, one section a file, beside the paper's figures.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command

RESULTS = Path(__file__).parents[1] / "results"
REFERENCE_SECONDS = 3  # of the reference voice that conditions a 25 Hz decoder


@dataclass(frozen=True)
class Family:
    """A tokenizer to measure.

    Attributes:
        preset, tiny: functions of `qtts_jax.configs.presets`.
        chunks: codes of the stream steps; None for the tokenizer's own block.
        encodes: whether the encoder is measured (once for tokenizers that share it).
    """

    preset: str
    tiny: str
    chunks: tuple[int, ...] | None
    encodes: bool = True


FAMILIES = {
    "12 Hz": Family("tokenizer_12hz", "tiny_tokenizer", (1, 4)),
    "25 Hz": Family("tokenizer_25hz", "tiny_tokenizer_25hz", None),
    "25 Hz class defaults": Family(
        "tokenizer_25hz_class_defaults", "tiny_tokenizer_25hz", None, encodes=False
    ),
}


class Codec:
    """One tokenizer with random weights, both families alike."""

    def __init__(self, family: Family, size: str, dtype: str, part: str | None) -> None:
        import jax.numpy as jnp

        from experiments.bench.random_models import random_params
        from qtts_jax import SpeechTokenizer
        from qtts_jax.configs import presets

        config = getattr(presets, family.preset)()
        if size == "tiny":
            config = getattr(presets, family.tiny)(config)
        model = SpeechTokenizer.from_params(config, {}).model
        params = random_params(model, config, jnp.dtype(dtype), part=part)
        self.tokenizer: Any = SpeechTokenizer.from_params(config, params)
        self.rate = self.tokenizer.sample_rate
        self.samples_per_code: int = self.tokenizer.samples_per_frame
        self.chunks = family.chunks or (self.tokenizer.first_chunks[-1],)
        self._rng = np.random.default_rng(0)
        self._voice: Any = None
        if self.tokenizer.needs_voice:
            from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice

            dit = config.decoder.dit
            frames = 100 * REFERENCE_SECONDS
            self._voice = ReferenceVoice(
                self._normal(dit.xvector_width), self._normal(frames, dit.n_mels)
            )

    def codes(self, rows: int, count: int) -> np.ndarray:
        """Random codes [B, T, Q], at 25 Hz [B, T]."""
        codebooks = self.tokenizer.codebooks
        shape = (rows, count) if codebooks == 1 else (rows, count, codebooks)
        return self._rng.integers(0, 64, shape, dtype=np.int32)

    def encode(self, rows: int, seconds: float) -> Callable[[], Any]:
        """A call that encodes noise."""
        rate = self.tokenizer.input_sample_rate
        waves = [(0.1 * self._normal(int(seconds * rate)), rate) for _ in range(rows)]
        return lambda: self.tokenizer.encode(waves)

    def decode(self, rows: int, seconds: float) -> Callable[[], Any]:
        """A call that decodes random codes of a whole utterance."""
        codes = list(self.codes(rows, round(seconds * self.rate / self.samples_per_code)))
        voices = () if self._voice is None else ([self._voice] * rows,)
        return lambda: self.tokenizer.decode(codes, *voices)

    def stream(self, rows: int) -> tuple[Callable[[np.ndarray], Any], int]:
        """A new stream: its step from codes to samples [B, n] on the device, and its delay in
        samples."""
        if self._voice is not None:
            decoder = self.tokenizer.blocks([self._voice] * rows, list(range(rows)))
            return lambda codes: decoder.push(codes), decoder.delay
        programs, params = self.tokenizer.programs, self.tokenizer.params["decoder"]
        state = programs.decoder_state(params, rows)

        def step(codes: np.ndarray) -> Any:
            nonlocal state
            wave, state = programs.decode(params, codes, state)
            return wave

        return step, 0

    def _normal(self, *shape: int) -> np.ndarray:
        return self._rng.standard_normal(shape).astype(np.float32)


def timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def median(run: Callable[[], Any], repeats: int) -> float:
    """Seconds of a call, after one that compiles."""
    run()
    return statistics.median(timed(run) for _ in range(repeats))


def first_packet(codec: Codec, rows: int, chunk: int) -> int:
    """Codes that a fresh stream takes until its first samples are on the host."""
    step, delay = codec.stream(rows)
    codes, taken, made = codec.codes(rows, chunk), 0, 0
    while made <= delay:
        made += np.asarray(step(codes)).shape[1]
        taken += chunk
    return taken


def measure_stream(codec: Codec, rows: int, repeats: int) -> dict[str, Any]:
    """Steps of every chunk size in the middle of a stream, and the first packet."""
    steps: dict[str, Any] = {}
    for chunk in codec.chunks:
        step, _ = codec.stream(rows)
        codes = codec.codes(rows, chunk)
        ms = 1e3 * median(lambda s=step, c=codes: np.asarray(s(c)), 4 * repeats)
        audio = rows * chunk * codec.samples_per_code / codec.rate
        steps[str(chunk)] = {"ms": ms, "ms_per_code": ms / chunk, "ms_per_audio_s": ms / audio}
    chunk = codec.chunks[0]
    taken = first_packet(codec, rows, chunk)
    return {
        "step": steps,
        "first_packet_ms": 1e3 * median(lambda: first_packet(codec, rows, chunk), repeats),
        "first_packet_codes": taken,
    }


def measure(args: argparse.Namespace, name: str, dtype: str) -> dict[str, Any]:
    """All figures of one family in one dtype."""
    family = FAMILIES[name]
    codec = Codec(family, args.size, dtype, "decoder" if args.steps_only else None)
    out: dict[str, Any] = {
        "dtype": dtype,
        "codes_per_s": codec.rate / codec.samples_per_code,
        "samples_per_code": codec.samples_per_code,
        "batch": {},
    }
    calls = {"decode": codec.decode, "encode": codec.encode}
    for rows in args.batches:
        row = measure_stream(codec, rows, args.repeats)
        for kind, make in calls.items():
            if args.steps_only or (kind == "encode" and not family.encodes):
                continue
            row[kind] = {}
            for seconds in args.seconds if kind == "decode" else args.seconds[:1]:
                if rows * seconds > args.most_audio:
                    continue
                spent = median(make(rows, seconds), args.repeats)
                cost = 1e3 * spent / (rows * seconds)
                row[kind][f"{seconds:g}"] = {"s": spent, "ms_per_audio_s": cost}
        out["batch"][str(rows)] = row
        print(f"{name} {dtype} batch {rows}: {json.dumps(row)}", file=sys.stderr, flush=True)
    return out


def device() -> dict[str, Any]:
    """The device and the versions of Python and JAX."""
    import jax

    kind = jax.devices()[0].device_kind
    if kind == "cpu":
        from experiments.bench.cpu import cpu_name

        kind = cpu_name()
    return {
        "device": kind,
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
    }


def run_in_a_process(*arguments: str) -> dict[str, Any]:
    """The result of this command in a new process, so that no memory of another part remains."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.bench.codec", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and write, or write the table of what was measured."""
    numbers = lambda kind: lambda text: [kind(x) for x in text.split(",")]  # noqa: E731
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--families", default=",".join(FAMILIES), help="tokenizers, by comma")
    parser.add_argument("--dtypes", default="float32", help="dtypes, by comma")
    parser.add_argument(
        "--batches", type=numbers(int), default=[1, 8, 64], help="batch sizes, by comma"
    )
    parser.add_argument(
        "--seconds", type=numbers(float), default=[10.0, 60.0], help="lengths of audio, by comma"
    )
    parser.add_argument(
        "--most-audio", type=float, default=1000.0, help="skip calls of more seconds of audio"
    )
    parser.add_argument(
        "--size", choices=("released", "tiny"), default="released", help="of the models"
    )
    parser.add_argument("--repeats", type=int, default=5, help="calls of each median")
    parser.add_argument("--steps-only", action="store_true", help="only stream steps")
    parser.add_argument(
        "--official", action="store_true", help="measure the official 25 Hz decoder as well"
    )
    parser.add_argument(
        "--out", type=Path, help="JSON file for the results (default: only printed)"
    )
    parser.add_argument(
        "--table", type=Path, nargs="+", help="render these JSON files instead of measuring"
    )
    parser.add_argument(
        "--into", type=Path, default=RESULTS / "codec_cost.md", help="file of --table"
    )
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.table:
        from experiments.bench.codec_table import render

        results = {path.name: json.loads(path.read_text()) for path in args.table}
        args.into.write_text(render(results))
        return
    if args.one:
        name, dtype = args.one
        if name == "official":
            from experiments.bench.official_25hz import measure_official

            print(json.dumps(measure_official(args, FAMILIES[dtype])))
        else:
            print(json.dumps(device() | {"figures": measure(args, name, dtype)}))
        return
    result: dict[str, Any] = {"size": args.size, "families": {}}

    def keep() -> None:
        """Write the results so far: a run may be stopped early."""
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=1) + "\n")

    for name in args.families.split(","):
        for dtype in args.dtypes.split(","):
            part = run_in_a_process("--one", name, dtype, *sys.argv[1:])
            result["families"].setdefault(name, {})[dtype] = part.pop("figures")
            result |= part
            keep()
        if args.official and name.startswith("25"):
            result.setdefault("official", {})[name] = run_in_a_process(
                "--one", "official", name, *sys.argv[1:]
            )
            keep()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
