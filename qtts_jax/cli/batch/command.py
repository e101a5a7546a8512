"""The options of `qtts batch`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qtts_jax import processes
from qtts_jax.cli.common import (
    add_allow_url,
    add_flow,
    add_model,
    add_text_treatment,
    load_tts,
    model_directory,
    note,
    positive,
    set_flow,
)


def add_command(commands: Any) -> None:
    """Add the parser of this command."""
    batch = commands.add_parser("batch", help="speak every request of a JSONL file")
    batch.add_argument("requests", type=Path, help="one JSON object a line: id, text, ...")
    batch.add_argument("--out", type=Path, required=True, help="directory for the results")
    batch.add_argument(
        "--batch-size",
        type=positive,
        default=8,
        help="requests generated together (default: %(default)s)",
    )
    batch.add_argument(
        "--strict",
        action="store_true",
        help="refuse lines whose result in the directory was made from another line, checkpoint, "
        "dtype or option (default: speak them anew)",
    )
    add_allow_url(batch)
    add_text_treatment(batch)
    add_model(batch)
    add_flow(batch.add_argument_group("decoder of a 25 Hz tokenizer"))
    processes.add_options(batch)
    batch.set_defaults(run=_batch, apart=True)


def _batch(args: argparse.Namespace) -> int:
    from qtts_jax.cli.batch.fingerprint import checkpoint_fingerprint
    from qtts_jax.cli.batch.run import run_batch
    from qtts_jax.cli.batch.share import own_directory
    from qtts_jax.functional import computation_dtype

    out = own_directory(args.out)
    tts = load_tts(args)
    settings = {
        "checkpoint": checkpoint_fingerprint(model_directory(args)),
        "dtype": str(computation_dtype(tts.params)),
        "weights": args.weights,
        "exact_reference": args.exact_reference,
        "steps": args.steps,
        "guidance": args.guidance,
    }
    set_flow(args, tts.speech_tokenizer, {})
    failed = run_batch(
        tts,
        args.requests,
        out,
        args.batch_size,
        note,
        settings,
        given={"normalize": args.normalize, "split": args.split},
        strict=args.strict,
        allow_url=args.allow_url,
    )
    if failed:
        note(f"qtts: {failed} request{'s' * (failed > 1)} failed; the others are in {out}.")
    return 1 if failed else 0
