"""The progress bar of a session: steps done, the last loss, and what remains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from qtts_jax.training.time_budget import TimeBudget


class ProgressBar:
    """Shows the steps of a session against its last step, or against what its time allows.

    Args:
        bar: in steps.
        budget: of the session.
    """

    def __init__(self, bar: tqdm[Any], budget: TimeBudget) -> None:
        self._bar, self._budget = bar, budget

    def begin(self, step: int) -> None:
        """Count from the steps of earlier sessions."""
        self._bar.initial = self._bar.n = step

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Show "compiling"; the time inside does not count in the budget."""
        self._bar.set_description("compiling")
        with self._budget.compiling():
            yield
        self._bar.set_description(None)

    def show(self, step: int, end: int, loss: float | None) -> None:
        """Update the bar, whose end is the last step or what fits into the time."""
        if self._bar.disable:
            return
        left = self._budget.steps_left()
        if left is not None:
            self._bar.total = min(end, step + left)
        elif not self._budget.limited:
            self._bar.total = end
        if loss is not None:
            self._bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
        self._bar.update(step - self._bar.n)


@contextmanager
def progress_bar(budget: TimeBudget, shown: bool) -> Iterator[ProgressBar]:
    """A bar on stderr for the time inside; without `shown` it is never drawn."""
    with tqdm(unit="step", disable=not shown, smoothing=0.05) as bar:
        yield ProgressBar(bar, budget)
