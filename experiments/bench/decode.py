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
- ..._int8, ..._fp8: the same and ms_per_frame_b1 in processes with weights of one byte.
- compile_cold_s, compile_cached_s: first two chunks in an empty and a filled compilation cache.
- parts_ms_b1: where the time of a frame goes. differing_codes: see `differing_codes`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from experiments.bench.random_models import build
from qtts_jax import QwenTTS
from qtts_jax.functional import abstract, bind
from qtts_jax.generation.frame_step import SamplingPlan
from qtts_jax.generation.sampling import gumbel_noise, sample
from qtts_jax.generation.session import FRAMES_PER_CALL, Session
from qtts_jax.layers import dispatch
from qtts_jax.layers.preprojected_table import Projected
from qtts_jax.layers.quantized_weights import STORED
from qtts_jax.layers.streamed_weights import plain
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.speech_tokenizer.programs_speech import frames_and_audio_program
from qtts_jax.speech_tokenizer.stream import SpeechStream

MEMORY = ("build_peak_gb", "weights_gb", "peak_gb_b1", "temporaries_gb_b1")
PROMPT = 51
FRAME_SECONDS = 0.08
CHUNK, BATCH_CHUNK = 4, 16
LATE = 7400
# Processes per size: full weights, one-byte weights at batch 1, an utterance of ten minutes.
PARTS = ("full", *STORED, "late")


def prompt_text(tts: QwenTTS) -> str:
    """Text that makes a prompt of PROMPT positions."""
    text = "a"
    while len(tts.prepare_custom_voice(text, "ryan", "english", seed=0).prompt) < PROMPT:
        text += " b" if len(text) % 3 else "c"
    return text


def request(tts: QwenTTS, seed: int, frames: int, text: str | None = None) -> Any:
    text = text or prompt_text(tts)
    return tts.prepare_custom_voice(text, "ryan", "english", seed=seed, max_new_tokens=frames + 1)


def timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def start(tts: QwenTTS, seeds: range, frames: int) -> SpeechStream:
    text = prompt_text(tts)  # once, since it takes a while
    requests = [request(tts, i, frames, text) for i in seeds]
    session = Session(tts.config, tts.params, requests)
    return tts.speech_tokenizer.open_stream(session, requests)


def run_stream(stream: SpeechStream, chunks: int, frames: int) -> list[np.ndarray]:
    """Generate chunks and copy their audio to the host, one chunk in flight; returns the codes."""
    waiting, codes = None, []
    for _ in range(chunks):
        made, wave = stream.advance(frames)
        codes.append(made)
        if waiting is not None:
            np.asarray(waiting)
        waiting = wave
    np.asarray(waiting)
    return [np.asarray(c) for c in codes]


def steady_ms(tts: QwenTTS, rows: int, chunk: int, frames: int) -> float:
    """Milliseconds a frame, streaming audio to the host."""
    stream = start(tts, range(rows), 3 * frames + 4 * chunk)
    run_stream(stream, 2, chunk)
    chunks = frames // chunk
    runs = [timed(lambda: run_stream(stream, chunks, chunk)) for _ in range(3)]
    return statistics.median(runs) * 1e3 / (chunks * chunk)


def first_audio_ms(tts: QwenTTS, repeats: int) -> float:
    """Text string in, first chunk of one frame on the host (median)."""
    text = prompt_text(tts)

    def once() -> None:
        next(tts.stream_custom_voice(text, "ryan", "english", seed=1, chunk_frames=(1, CHUNK)))

    once()
    return statistics.median(timed(once) for _ in range(repeats)) * 1e3


def late_over_early(tts: QwenTTS, last: int) -> dict[str, float]:
    """Milliseconds a frame around frame 100 and around frame `last` of one request."""
    stream = start(tts, range(1), last + 200)

    def until(frame: int) -> None:
        while stream.session.frames_asked < frame:
            run_stream(stream, 4, CHUNK)

    until(64)
    early = timed(lambda: run_stream(stream, 16, CHUNK)) * 1e3 / (16 * CHUNK)
    until(last - 64)
    late = timed(lambda: run_stream(stream, 16, CHUNK)) * 1e3 / (16 * CHUNK)
    return {"early_ms": early, "late_ms": late, "late_over_early": late / early}


def codec_step_ms(tts: QwenTTS, rows: int, frames: int) -> float:
    """Milliseconds a frame of the audio decoder alone, in chunks of `frames`."""
    programs, params = tts.speech_tokenizer.programs, tts.speech_tokenizer.params["decoder"]
    state = programs.decoder_state(params, rows)
    codes = jnp.zeros((rows, frames, tts.config.talker.codebooks), jnp.int32)

    def run(times: int) -> None:
        nonlocal state
        for _ in range(times):
            wave, state = programs.decode(params, codes, state)
        wave.block_until_ready()

    run(2)
    return statistics.median(timed(lambda: run(20)) for _ in range(3)) * 1e3 / (20 * frames)


def per_step_ms(step: Callable[..., Any], params: Any, carry: Any) -> float:
    """Milliseconds of one of FRAMES_PER_CALL steps `carry -> carry` in one program."""

    @jax.jit
    def run(params: Any, carry: Any) -> Any:
        def body(c: Any, _: None) -> tuple[Any, None]:
            return step(params, c), None

        return jax.lax.scan(body, carry, None, length=FRAMES_PER_CALL)[0]

    jax.block_until_ready(run(params, carry))
    return timed(lambda: jax.block_until_ready(run(params, carry))) * 1e3 / FRAMES_PER_CALL


def parts_ms(tts: QwenTTS, total: float, codec: float) -> dict[str, float]:
    """Milliseconds of a frame at batch 1 by part; the code predictor is the remainder."""
    graph, _ = abstract(TTSModel, tts.config)
    session = Session(tts.config, tts.params, [request(tts, 0, 4 * FRAMES_PER_CALL)])
    session.advance().block_until_ready()
    codes = timed(lambda: session.advance().block_until_ready()) * 1e3 / FRAMES_PER_CALL
    state, conditions, methods = session.state, session.conditions, session.methods

    def talker(params: Any, carry: Any) -> Any:
        x, memory = carry
        model = bind(graph, params).talker
        y, memory = model.step(x, memory)
        return y + model.logits(y[:, 0])[0, 0].astype(y.dtype), memory

    def sampling(_: Any, logits: jax.Array) -> jax.Array:
        return logits + sample_codebooks(
            tts, methods, conditions.predictor, conditions.keys, logits
        )

    vocab = tts.config.talker.code_predictor.vocab_size
    alone = {
        "talker": per_step_ms(talker, tts.params, (state.hidden[:, None], state.talker)),
        "sampling": per_step_ms(sampling, (), jnp.zeros((1, vocab), jnp.float32)),
        "codec": codec,
    }
    return {
        **alone,
        "code predictor": codes - alone["talker"] - alone["sampling"],
        "transfer and host": total - codes - codec,
    }


def sample_codebooks(
    tts: QwenTTS, methods: SamplingPlan, sampler: Any, keys: jax.Array, logits: jax.Array
) -> jax.Array:
    """Samples one code per codebook, each depending on the one before, as in a frame."""
    for codebook in range(tts.config.talker.codebooks):
        noise = gumbel_noise(
            jax.vmap(jax.random.fold_in, (0, None))(keys, codebook), logits.shape[1]
        )
        drawn = sample(logits, noise, sampler, methods.predictor)
        logits = logits + drawn[:, None] * 1e-6
    return logits


def differing_codes(tts: QwenTTS, frames: int) -> dict[str, float]:
    """The share of codes that differ between two ways to compute the same requests.

    Sampling amplifies rounding: after the first different code everything may differ, so the share
    depends on how early that happens. Random weights give nearly flat logits, where rounding
    matters far more often than in a trained model.
    """
    chunks = frames // CHUNK
    alone = [
        np.concatenate(run_stream(start(tts, range(i, i + 1), frames), chunks, CHUNK), axis=1)[0]
        for i in range(8)
    ]
    batch = run_stream(start(tts, range(8), frames), frames // BATCH_CHUNK, BATCH_CHUNK)
    together = np.concatenate(batch, axis=1)[:8]
    session = Session(tts.config, tts.params, [request(tts, 0, frames)])
    whole = np.asarray(session.advance())[0, :frames]
    return {
        "streamed and whole, batch 1": float(np.mean(alone[0][: len(whole)] != whole)),
        "batch 1 and batch 8": float(np.mean(np.stack(alone) != together)),
        "batch 1 and batch 8, first frame": float(np.mean(np.stack(alone)[:, 0] != together[:, 0])),
    }


def bytes_per_frame(tts: QwenTTS) -> int:
    """Weight bytes read for one frame at batch 1, each once a pass (tables: one row)."""

    def size(tree: Any) -> int:
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))

    talker, predictor = tts.params["talker"], tts.params["code_predictor"]
    codebooks = tts.config.talker.codebooks
    head = plain(talker["codec_head"]["kernel"])
    once = size(talker["transformer"]) + size(head) + size(plain(predictor["heads"]))
    projection = size(predictor.get("input_projection", {}))
    # With a preprojected table only the two inputs from the talker are projected.
    passes = 1 if isinstance(predictor["embeddings"], Projected) else codebooks
    return once + codebooks * size(predictor["transformer"]) + passes * projection


def bandwidth() -> float:
    """Device memory bandwidth, bytes read and written per second, of a large copy."""
    n = (1 << 31 if jax.default_backend() != "cpu" else 1 << 27) // 4
    x = jax.random.normal(jax.random.key(0), (n,), jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    copy(x).block_until_ready()

    def run() -> None:
        for _ in range(10):
            y = copy(x)
        y.block_until_ready()

    return 10 * 2 * 4 * n / timed(run)


def memory_gb(*names: str) -> list[float | None]:
    """Statistics of the device's allocator in GB; None where there are none."""
    stats = jax.devices()[0].memory_stats() or {}
    return [stats[name] / 1e9 if name in stats else None for name in names]


def peak_gb() -> float | None:
    return memory_gb("peak_bytes_in_use")[0]


def temporaries_gb(tts: QwenTTS) -> float:
    """Temporary memory in GB of the compiled chunk at batch 1."""
    codec, session = tts.speech_tokenizer, start(tts, range(1), 64).session
    decoder = codec.part("decoder")
    chunk = frames_and_audio_program(tts.config, codec.config).lower(
        tts.params,
        decoder,
        session.conditions,
        session.state,
        codec.programs.decoder_state(decoder, 1),
        methods=session.methods,
        frames=CHUNK,
    )
    return chunk.compile().memory_analysis().temp_size_in_bytes / 1e9


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
