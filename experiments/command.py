"""Library of all commands: the parser with the docstring as help, and the exit status.

def main() -> None:
    parser = command.parser(__doc__, __file__)
    ...

if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from qtts_jax import processes
from qtts_jax.errors import QTTSError

ROOT = Path(__file__).resolve().parents[1]


def module_name(file: str) -> str:
    """The dotted name of a module of this folder, such as "experiments.bench.decode"."""
    return ".".join(Path(file).resolve().relative_to(ROOT).with_suffix("").parts)


def parser(doc: str | None, file: str) -> argparse.ArgumentParser:
    """A parser whose `--help` shows the whole docstring and the default of every option."""
    return argparse.ArgumentParser(
        prog=f"python -m {module_name(file)}", description=doc, formatter_class=_Formatter
    )


def exit_status(file: str, main: Callable[[], None]) -> int:
    """Run a command; 1 after printing the sentence of a `QTTSError` on stderr, else 0."""
    try:
        main()
    except QTTSError as error:
        print(f"{module_name(file)}: {error}", file=sys.stderr)
        processes.end_at_once(1)
        return 1
    return 0


def exit_status_of_library(file: str, *users: str) -> int:
    """Print which commands use a module that is no command itself; status 2."""
    commands = " or ".join(f"`python -m {user}`" for user in users)
    print(f"{module_name(file)} is a library, not a command; run {commands}.", file=sys.stderr)
    return 2


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks of the description and adds the default of an option, if it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help, action.default
        if text is None or not action.option_strings or "default:" in text:
            return text
        if default is None or default is False or default in ([], (), argparse.SUPPRESS):
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
        return f"{text} (default: {shown})".replace(shown, shown.replace("%", "%%"))


if __name__ == "__main__":
    raise SystemExit(exit_status_of_library(__file__, "experiments.bench.decode"))
