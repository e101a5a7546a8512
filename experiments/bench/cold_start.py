"""Time from the start of a process with a filled compilation cache to its first audio.

    python -m experiments.bench.cold_start --out experiments/results/bench_start.NAME.json

Makes a 0.6B CustomVoice checkpoint of random weights (bfloat16, 2.5 GB on disk), fills a fresh
compilation cache with `qtts warmup`, then starts processes that load the checkpoint and stream
until their first chunk of audio, and prints where their time goes (medians). The files are in the
page cache, as they are for a second process. Expected: at most 10 s on the host of one H100, and
no program compiled anew; 3 GB of disk, about five minutes, most of them for the first compilation.
`--size tiny` tries it in a minute.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments import command
from qtts_jax.errors import EvaluationError

ROOT = Path(__file__).parents[2]
TEXT = "The first words of a second process."
SIZES = {"0.6B": "0b6", "1.7B": "1b7", "tiny": "0b6"}


def make(folder: Path, size: str) -> None:
    """Write a checkpoint of random weights with every file that `from_pretrained` reads."""
    import jax.numpy as jnp

    from experiments.bench.random_models import random_params
    from qtts_jax import embedded
    from qtts_jax.configs.presets import tiny, tiny_tokenizer, tokenizer_12hz, tts_12hz
    from qtts_jax.io.checkpoint import save_params
    from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
    from qtts_jax.models.tts_model import TTSModel
    from qtts_jax.text.bpe import copy_text_files

    config, speech = tts_12hz(SIZES[size], "custom_voice"), tokenizer_12hz()
    if size == "tiny":
        config, speech = tiny(config), tiny_tokenizer(speech)
    tokenizer = folder / "speech_tokenizer"
    tokenizer.mkdir(parents=True)
    copy_text_files(embedded.DIRECTORY, folder)
    (folder / "generation_config.json").write_text(json.dumps({"max_new_tokens": 8192}))
    # The types that the released checkpoints have.
    for place, module, model, dtype in (
        (folder, TTSModel, config, jnp.bfloat16),
        (tokenizer, Tokenizer12Hz, speech, jnp.float32),
    ):
        (place / "config.json").write_text(json.dumps(model.to_hf()))
        save_params(place, random_params(module, model, dtype))


def first_audio(model: Path, cache: Path, spawned: float) -> dict[str, Any]:
    """Seconds of each phase of this process from its start at `spawned` to its first audio."""
    marks = {"interpreter": time.time() - spawned}
    last = time.time()

    def mark(name: str) -> None:
        nonlocal last
        now = time.time()
        marks[name] = now - last
        last = now

    import jax

    from qtts_jax import QwenTTS, compilation_cache

    os.environ[compilation_cache.SWITCH] = str(cache)

    assert QwenTTS.from_pretrained
    mark("import")
    device = jax.devices()[0]
    jax.device_put(0.0).block_until_ready()
    mark("device")
    tts = QwenTTS.from_pretrained(model)
    jax.block_until_ready((tts.params, tts.speech_tokenizer.params))
    mark("weights")

    counts = {"cache_hits": 0}
    seconds = {"trace": 0.0, "lower": 0.0, "compile_or_get_cached": 0.0}
    names = {
        "/jax/core/compile/jaxpr_trace_duration": "trace",
        "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
        "/jax/core/compile/backend_compile_duration": "compile_or_get_cached",
    }

    def on_event(event: str, **_: Any) -> None:
        name = event.rsplit("/", 1)[-1]
        if name in counts:
            counts[name] += 1

    def on_duration(event: str, duration: float, **_: Any) -> None:
        if event in names:
            seconds[names[event]] += duration

    jax.monitoring.register_event_listener(on_event)
    jax.monitoring.register_event_duration_secs_listener(on_duration)

    missed: list[str] = []

    class Misses(logging.Handler):
        """Collects the names of programs that the cache did not have."""

        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if "CACHE MISS" in text:
                missed.append(text.split("'")[1])

    compiler = logging.getLogger("jax._src.compiler")
    compiler.addHandler(Misses())
    compiler.setLevel(logging.DEBUG)
    compiler.propagate = False

    def chunk() -> None:
        stream = tts.stream_custom_voice(TEXT, "ryan", "english", seed=1)
        next(stream)
        stream.close()

    chunk()
    mark("first chunk")
    total = time.time() - spawned
    programs, spent, anew = dict(counts), dict(seconds), list(missed)
    chunk()
    mark("a chunk once warm")
    return {
        "first_audio_s": total,
        "split_s": marks,
        "programs": programs,
        "programs_s": spent,
        "missed": anew,
        "peak_host_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "device": str(device.device_kind),
        "jax": jax.__version__,
    }


def child(*arguments: object) -> str:
    """What this script prints when it is run with `arguments` in a process of its own."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    argv = [sys.executable, "-m", "experiments.bench.cold_start", *map(str, arguments)]
    done = subprocess.run(
        argv, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise EvaluationError("a process failed; see its message above.")
    return done.stdout


def warm_up(model: Path, cache: Path) -> float:
    """Seconds of `qtts warmup` with an empty cache."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    argv = [sys.executable, "-m", "qtts_jax", "warmup", str(model)]
    argv += ["--compile-cache", str(cache), "--batch-size", "1", "--seconds", "20"]
    started = time.perf_counter()
    subprocess.run(argv, env=os.environ | {"PYTHONPATH": path}, check=True)
    return time.perf_counter() - started


def main() -> None:
    """Make the checkpoint, fill the cache, measure and write."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--size", choices=SIZES, default="0.6B", help="of the model")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each median")
    parser.add_argument(
        "--quick", action="store_true", help="fill the cache by a first process, not by qtts warmup"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="keep checkpoint and cache here for later runs (default: temporary)",
    )
    parser.add_argument(
        "--out", type=Path, help="JSON file for the results (default: only printed)"
    )
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make(args.make, args.size)
        return
    if args.measure:
        model, cache, spawned = args.measure
        print(json.dumps(first_audio(Path(model), Path(cache), float(spawned))))
        return
    # The cache is the one of this run, whatever the caller uses.
    for name in ("COMPILATION_CACHE_DIR", "COMPILATION_CACHE_MAX_SIZE"):
        os.environ.pop(f"JAX_{name}", None)
    os.environ.pop("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", None)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        model, cache = folder / "model", folder / "cache"
        filled = None
        # This process never touches the device, most of whose memory it would take.
        if not cache.exists():
            child("--size", args.size, "--make", model)
            if args.quick:
                started = time.perf_counter()
                child("--measure", model, cache, time.time())
                filled = time.perf_counter() - started
            else:
                filled = warm_up(model, cache)
        runs = []
        for _ in range(args.repeats):
            text = child("--measure", model, cache, time.time())
            runs.append(json.loads(text.splitlines()[-1]))
        megabytes = sum(p.stat().st_size for p in cache.rglob("*") if p.is_file()) / 1e6
    runs.sort(key=lambda run: run["first_audio_s"])
    result = {
        "device": runs[0]["device"],
        "versions": {"python": platform.python_version(), "jax": runs[0]["jax"]},
        "size": args.size,
        "first_audio_s": statistics.median(run["first_audio_s"] for run in runs),
        "split_s": {
            part: statistics.median(run["split_s"][part] for run in runs)
            for part in runs[0]["split_s"]
        },
        "cache_filled_by": "a first process" if args.quick else "qtts warmup",
        "cache_filled_s": filled,
        "cache_mb": megabytes,
        "runs": runs,
    }
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
