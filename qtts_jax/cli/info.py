"""`qtts info` and `qtts warmup`: describe a checkpoint, compile its programs."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from qtts_jax import compilation_cache, processes
from qtts_jax.cli.common import add_model, load_tts, note, positive


def add_commands(commands: Any) -> None:
    """Add the parsers of these commands."""
    warmup = commands.add_parser("warmup", help="fill the compilation cache for quick starts")
    warmup.add_argument("checkpoint", type=Path, nargs="?", help="the same as --model")
    warmup.add_argument(
        "--batch-size",
        type=positive,
        default=8,
        help="of later `qtts batch` (default: %(default)s)",
    )
    warmup.add_argument(
        "--seconds", type=positive, default=80, help="longest utterance (default: %(default)s)"
    )
    add_model(warmup)
    warmup.set_defaults(run=_warmup)

    info = commands.add_parser("info", help="what a checkpoint is and can do")
    add_model(info)
    processes.add_options(info)
    info.set_defaults(run=_info, apart=False)


def _info(args: argparse.Namespace) -> int:
    tts = load_tts(args)
    for name, value in tts.describe().items():
        if processes.writes():
            print(f"{name:18} {value}")
    # Of every process: a mesh reads the checkpoint shard by shard, and each process only its own.
    if peak := processes.peak_memory():
        print(f"{processes.prefix() + 'host memory':18} {peak / 1e6:,.1f} MB at peak")
    return 0


def _warmup(args: argparse.Namespace) -> int:
    from qtts_jax.tts.warmup import warm_up

    args.model = args.checkpoint or args.model
    started = time.perf_counter()
    count = warm_up(load_tts(args), args.batch_size, args.seconds)
    seconds = time.perf_counter() - started
    kept = compilation_cache.enable()
    where = f"in {kept}" if kept else "in this process alone: no cache of compiled programs is set"
    note(f"{count} kinds of request are ready {where} ({seconds:.0f} s)")
    return 0
