"""How a command ends: a fault that its user can mend is one sentence, not a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from qtts_jax.errors import QTTSError


def exit_status(name: str, command: Callable[[], None]) -> int:
    """Run a command and say on stderr what is wrong, if anything is: 0 or 1."""
    try:
        command()
    except QTTSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0
