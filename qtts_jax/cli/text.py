"""`qtts text`: print a text as a checkpoint will speak it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from qtts_jax.cli.common import add_normalize, model_directory


def add_command(commands: Any) -> None:
    """Add the parser of this command."""
    text = commands.add_parser("text", help="print a text as it will be spoken, in words")
    text.add_argument("text", help="the text, or - to read it from stdin")
    text.add_argument("--language", default="auto", help="its language (default: %(default)s)")
    text.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="the checkpoint that will speak (default: nano, which is inside the package)",
    )
    add_normalize(text)
    text.set_defaults(run=_text)


def _text(args: argparse.Namespace) -> int:
    from qtts_jax.configs.tts import TTSConfig
    from qtts_jax.io.config_file import check_converted, read_config
    from qtts_jax.tts.spoken_text import spoken_text

    directory = model_directory(args)
    check_converted(directory)
    config = TTSConfig.from_hf(read_config(directory))
    normalized = config.normalize_text if args.normalize is None else args.normalize
    text = sys.stdin.read() if args.text == "-" else args.text
    print(spoken_text(text, args.language, normalized, config.named_letters))
    return 0
