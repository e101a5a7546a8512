"""The end of a command whose result is a report of judges."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from qtts_jax.errors import QTTSError
from qtts_jax.evaluation.report import Report


def finish(name: str, measure: Callable[[], Report], out: Path) -> int:
    """Measure, write the report under `out` and print its table; or say what is wrong.

    Returns:
        The exit status.
    """
    try:
        report = measure()
        report.write(out, plot=False)
    except QTTSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    print(report.markdown())
    return 0
