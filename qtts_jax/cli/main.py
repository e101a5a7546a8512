"""The `qtts` command line, one subcommand for each task."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from qtts_jax import processes
from qtts_jax.cli import codec, evaluate, info, serve, speak, text
from qtts_jax.cli.batch import command as batch
from qtts_jax.cli.common import note, use_compile_cache
from qtts_jax.cli.compile_note import compile_note
from qtts_jax.cli.examples import EPILOG, EXAMPLES
from qtts_jax.errors import QTTSError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, 1 for a fault (one sentence on stderr), 2 for wrong usage, 130 when
        interrupted.
    """
    args = build_parser().parse_args(arguments)
    if hasattr(args, "compile_cache"):  # a command that loads a model
        use_compile_cache(args.compile_cache)
    warnings.showwarning = lambda message, *_, **__: note(f"note: {message}")
    try:
        if hasattr(args, "coordinator"):  # a command that several processes may run
            processes.start(args, apart=args.apart)
        with compile_note():
            return args.run(args)
    except QTTSError as error:
        note(f"qtts: {error}")
        processes.end_at_once(1)
        return 1
    except KeyboardInterrupt:
        note("qtts: interrupted; what was finished has been kept.")
        processes.end_at_once(processes.INTERRUPTED)
        return processes.INTERRUPTED


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `qtts`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="qtts", description="Qwen3-TTS in JAX.", epilog=EPILOG, formatter_class=raw
    )
    parser.add_argument("--version", action="version", version=f"qtts_jax {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    speak.add_commands(commands)
    text.add_command(commands)
    codec.add_commands(commands)
    info.add_commands(commands)
    batch.add_command(commands)
    serve.add_command(commands)
    evaluate.add_command(commands)
    for name, command in commands.choices.items():
        command.formatter_class = raw
        command.epilog = f"examples:\n{EXAMPLES[name]}"
    return parser


def _version() -> str:
    try:
        return version("qtts_jax")
    except PackageNotFoundError:  # a source tree that is not installed
        return "unknown"
