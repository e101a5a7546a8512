"""The options of `qtts batch`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qtts_jax.cli.common import (
    add_allow_url,
    add_flow,
    add_model,
    load_tts,
    note,
    positive,
    set_flow,
)


def add_command(commands: Any) -> None:
    """Add the parser of this command."""
    batch = commands.add_parser("batch", help="speak every request of a JSONL file")
    batch.add_argument("requests", type=Path)
    batch.add_argument("--out", type=Path, required=True, help="directory for the results")
    batch.add_argument("--batch-size", type=positive, default=8)
    add_allow_url(batch)
    add_model(batch)
    add_flow(batch.add_argument_group("decoder of a 25 Hz tokenizer"))
    batch.set_defaults(run=_batch)


def _batch(args: argparse.Namespace) -> int:
    from qtts_jax.cli.batch.run import run_batch

    tts = load_tts(args)
    set_flow(args, tts.speech_tokenizer, {})
    failed = run_batch(tts, args.requests, args.out, args.batch_size, note, args.allow_url)
    if failed:
        note(f"qtts: {failed} request{'s' * (failed > 1)} failed; the others are in {args.out}.")
    return 1 if failed else 0
