"""The `qtts` command line, one subcommand for each task."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence

from qtts_jax.cli import codec, evaluate, info, serve, speak
from qtts_jax.cli.batch import command as batch
from qtts_jax.cli.common import note, use_compile_cache
from qtts_jax.errors import QTTSError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, 1 for a fault (one sentence on stderr), 2 for wrong usage, 130 when
        interrupted.
    """
    args = build_parser().parse_args(arguments)
    use_compile_cache(args.compile_cache)
    warnings.showwarning = lambda message, *_, **__: note(f"note: {message}")
    try:
        return args.run(args)
    except QTTSError as error:
        note(f"qtts: {error}")
        return 1
    except KeyboardInterrupt:
        note("qtts: interrupted; what was finished has been kept.")
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `qtts`."""
    parser = argparse.ArgumentParser(prog="qtts", description="Qwen3-TTS in JAX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    speak.add_commands(commands)
    codec.add_commands(commands)
    info.add_commands(commands)
    batch.add_command(commands)
    serve.add_command(commands)
    evaluate.add_command(commands)
    return parser
