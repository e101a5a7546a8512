"""The end of a command whose result is a report of judges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from experiments.exit_status import exit_status
from qtts_jax.evaluation.report import Report


def finish(name: str, measure: Callable[[], Report], out: Path) -> int:
    """Measure, write the report under `out` and print its table; or say what is wrong.

    Returns:
        The exit status.
    """

    def command() -> None:
        report = measure()
        report.write(out, plot=False)
        print(report.markdown())

    return exit_status(name, command)
