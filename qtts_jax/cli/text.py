"""`qtts text`: print a text as it will be spoken."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_command(commands: Any) -> None:
    """Add the parser of this command."""
    text = commands.add_parser("text", help="print a text as it will be spoken, in words")
    text.add_argument("text", help="the text, or - to read it from stdin")
    text.add_argument("--language", default="auto", help="its language (default: %(default)s)")
    text.set_defaults(run=_text)


def _text(args: argparse.Namespace) -> int:
    from qtts_jax.tts.spoken_text import spoken_text

    text = sys.stdin.read() if args.text == "-" else args.text
    print(spoken_text(text, args.language, True))
    return 0
