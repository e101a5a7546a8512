"""Decode speed at released sizes: random weights built on the device, sampled, codec included.

    python experiments/bench_decode.py --out experiments/results/bench_decode.NAME.json

Random weights cost what trained ones do; the end of speech is made impossible so that every run
has its full length. Prompts have 51 positions, sampling is the released default (top-k 50 in both
heads, repetition penalty 1.05). `--sizes 0.6B --batches 1 --quick` is the shortest useful run.

Reported for each size: steady ms a frame at batch 1 (chunks of 4 frames, audio on the host),
text to first audio (text string in, first float32 chunk on the host, warm), audio seconds per
second for every batch size, share of measured memory bandwidth, ms a frame late in a long
utterance over early, peak memory, and compile times.
"""

from __future__ import annotations

import argparse
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

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax import QwenTTS, SpeechTokenizer, embedded
from qtts_jax.functional import abstract
from qtts_jax.generation.loops import FRAMES_PER_CALL, Session
from qtts_jax.generation.sampling_params import SamplingParams
from qtts_jax.io.text import TextTokenizer
from qtts_jax.layers import kernels
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.presets import tiny, tiny_tokenizer, tokenizer_12hz, tts_12hz
from qtts_jax.synthesis import Stream

SIZES = {"0.6B": "0b6", "1.7B": "1b7"}
PROMPT = 51
FRAME_SECONDS = 0.08
CHUNK = 4


def random_params(module: Any, config: Any, dtype: Any) -> Any:
    """Random parameters in `dtype`, made on the device, one small program for every shape."""
    draw = jax.jit(
        lambda key, shape, std: (std * jax.random.normal(key, shape)).astype(dtype),
        static_argnums=(1, 2),
    )
    leaves, tree = jax.tree_util.tree_flatten_with_path(abstract(module, config)[1])
    ones = ("scale", "usage", "initialized")
    return jax.tree.unflatten(
        tree,
        [
            jnp.ones(x.shape, dtype)
            if str(path[-1].key) in ones
            else draw(jax.random.key(i), x.shape, 0.02)
            for i, (path, x) in enumerate(leaves)
        ],
    )


def build(size: str, dtype: Any) -> QwenTTS:
    """A checkpoint of a released size with random weights that never end an utterance."""
    config = tts_12hz(SIZES.get(size, "0b6"), "custom_voice")
    speech = tokenizer_12hz()
    if size == "tiny":
        config, speech = tiny(config), tiny_tokenizer(speech)
    params = random_params(TTSModel, config, dtype)
    head = params["talker"]["codec_head"]
    # A logit of 0 is far outside the top 50 of 2048 random ones.
    head["kernel"] = head["kernel"].at[config.talker.eos_id].set(0)
    return QwenTTS(
        config,
        params,
        SpeechTokenizer(speech, random_params(Tokenizer12Hz, speech, dtype)),
        TextTokenizer.from_dir(embedded.DIRECTORY),
        SamplingParams(max_new_tokens=8192),
    )


def prompt_text(tts: QwenTTS) -> str:
    """Text that makes a prompt of PROMPT positions."""
    text = "a"
    while len(tts.prepare_custom_voice(text, "ryan", "english", seed=0).prompt) < PROMPT:
        text += " b" if len(text) % 3 else "c"
    return text


def request(tts: QwenTTS, seed: int, frames: int) -> Any:
    return tts.prepare_custom_voice(
        prompt_text(tts), "ryan", "english", seed=seed, max_new_tokens=frames + 1
    )


def timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def start(tts: QwenTTS, rows: int, frames: int) -> Stream:
    requests = [request(tts, i, frames) for i in range(rows)]
    return Stream(tts.config, tts.params, tts.speech_tokenizer, requests)


def run_stream(stream: Stream, chunks: int, frames: int) -> None:
    """Generate chunks and bring their audio to the host, one chunk in flight."""
    waiting = None
    for _ in range(chunks):
        _, wave = stream.advance(frames)
        if waiting is not None:
            np.asarray(waiting)
        waiting = wave
    np.asarray(waiting)


def steady_ms(tts: QwenTTS, rows: int, chunk: int, frames: int) -> float:
    """Milliseconds a frame, streaming audio to the host."""
    stream = start(tts, rows, frames + 4 * chunk)
    run_stream(stream, 4, chunk)
    chunks = frames // chunk
    return timed(lambda: run_stream(stream, chunks, chunk)) * 1e3 / (chunks * chunk)


def first_audio_ms(tts: QwenTTS, repeats: int) -> float:
    """Text string in, first chunk of one frame on the host (median)."""
    text = prompt_text(tts)

    def once() -> None:
        next(tts.stream_custom_voice(text, "ryan", "english", seed=1, chunk_frames=(1, CHUNK)))

    once()
    return statistics.median(timed(once) for _ in range(repeats)) * 1e3


def late_over_early(tts: QwenTTS, last: int) -> dict[str, float]:
    """Milliseconds a frame around frame 100 and around frame `last` of one request."""
    stream = start(tts, 1, last + 200)

    def until(frame: int) -> None:
        while stream.session.frames_asked < frame:
            run_stream(stream, 4, CHUNK)

    until(64)
    early = timed(lambda: run_stream(stream, 16, CHUNK)) * 1e3 / (16 * CHUNK)
    until(last - 64)
    late = timed(lambda: run_stream(stream, 16, CHUNK)) * 1e3 / (16 * CHUNK)
    return {"early_ms": early, "late_ms": late, "late_over_early": late / early}


def codec_step_ms(tts: QwenTTS, rows: int, frames: int, repeats: int) -> float:
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
    return timed(lambda: run(repeats)) * 1e3 / (repeats * frames)


def codes_only_ms(tts: QwenTTS, rows: int) -> float:
    """Milliseconds a frame of talker and code predictor in one program of FRAMES_PER_CALL."""
    requests = [request(tts, i, 4 * FRAMES_PER_CALL) for i in range(rows)]
    session = Session(tts.config, tts.params, requests)
    session.advance().block_until_ready()
    return timed(lambda: session.advance().block_until_ready()) * 1e3 / FRAMES_PER_CALL


def bytes_per_frame(tts: QwenTTS) -> int:
    """Weight bytes read for one frame at batch 1, each once a pass (tables: one row)."""

    def size(tree: Any) -> int:
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))

    talker, predictor = tts.params["talker"], tts.params["code_predictor"]
    books = tts.config.talker.codebooks
    once = size(talker["transformer"]) + size(talker["codec_head"]) + size(predictor["heads"])
    projection = size(predictor.get("input_projection", {}))
    return once + books * (size(predictor["transformer"]) + projection)


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


def peak_gb() -> float | None:
    stats = jax.devices()[0].memory_stats()
    return None if not stats else stats["peak_bytes_in_use"] / 1e9


class Report(dict[str, Any]):
    """Figures that are also shown as soon as they are known."""

    def __setitem__(self, name: str, value: Any) -> None:
        print(f"{name}: {value}", file=sys.stderr, flush=True)
        super().__setitem__(name, value)


def measure(size: str, batches: list[int], quick: bool, late: bool, dtype: Any) -> dict[str, Any]:
    """All figures of one size."""
    out = Report()
    out["device"] = str(jax.devices()[0].device_kind)
    out["bandwidth_gb_per_s"] = bandwidth() / 1e9
    started = time.perf_counter()
    tts = build(size, dtype)
    out["build_s"] = time.perf_counter() - started
    frames = 64 if quick else 256
    out["first_call_s"] = timed(lambda: steady_ms(tts, 1, CHUNK, CHUNK))
    out["ms_per_frame_b1"] = statistics.median(steady_ms(tts, 1, CHUNK, frames) for _ in range(3))
    out["peak_gb_b1"] = peak_gb()
    out["bytes_per_frame"] = bytes_per_frame(tts)
    rate = out["bytes_per_frame"] / (out["ms_per_frame_b1"] / 1e3)
    out["bandwidth_share_b1"] = rate / 1e9 / out["bandwidth_gb_per_s"]
    out["first_audio_ms"] = first_audio_ms(tts, 5 if quick else 20)
    out["codec_step_ms"] = codec_step_ms(tts, 1, CHUNK, 20)
    if late:
        for name, value in late_over_early(tts, 7400).items():
            out[name] = value
    throughput: dict[int, float] = {}
    for rows in batches:
        ms = out["ms_per_frame_b1"] if rows == 1 else steady_ms(tts, rows, CHUNK, 64)
        throughput[rows] = rows * FRAME_SECONDS / (ms / 1e3)
        out["audio_s_per_s"] = throughput
    if not quick:
        out["parts_ms_b1"] = {
            "talker and code predictor": codes_only_ms(tts, 1),
            "codec": out["codec_step_ms"],
        }
    out["peak_gb"] = peak_gb()
    return out


def profile(size: str, directory: Path, dtype: Any) -> None:
    """Record four chunks of batch 1 for TensorBoard or Perfetto."""
    stream = start(build(size, dtype), 1, 64)
    run_stream(stream, 4, CHUNK)
    with jax.profiler.trace(str(directory), create_perfetto_trace=True):
        run_stream(stream, 4, CHUNK)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="0.6B,1.7B")
    parser.add_argument("--batches", default="1,8,32,64,128,256")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--backend", choices=("plain", "triton"), help="force a decode path")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-late", action="store_true", help="skip the ten-minute utterance")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--profile", type=Path, help="write a profile of batch 1 there and stop")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    batches = [int(b) for b in args.batches.split(",")]
    kernels.override = args.backend
    if args.one:
        if args.profile:
            profile(args.one, args.profile, jnp.dtype(args.dtype))
            return
        print(
            json.dumps(
                measure(args.one, batches, args.quick, not args.no_late, jnp.dtype(args.dtype))
            )
        )
        return
    # The sizes run in processes of their own, one at a time: peak memory is that of a size alone,
    # and this process never touches the device, most of whose memory it would take.
    result: dict[str, Any] = {
        "versions": {
            "python": platform.python_version(),
            "jax": jax.__version__,
        },
        "flags": os.environ.get("XLA_FLAGS", ""),
        "dtype": args.dtype,
        "backend": args.backend or "chosen by the package",
        "sizes": {},
    }
    for size in args.sizes.split(","):
        command = [sys.executable, __file__, "--one", size, *sys.argv[1:]]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        if args.profile:
            continue
        figures = json.loads(run.stdout.splitlines()[-1])
        result["device"] = figures.pop("device")
        result["sizes"][size] = figures
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
