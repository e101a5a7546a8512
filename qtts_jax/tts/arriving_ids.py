"""Text ids of a request whose text is still arriving."""

from __future__ import annotations

from collections.abc import Callable, Iterator


class ArrivingIds(Iterator[list[int]]):
    """Text ids still to come, in lists.

    Attributes:
        budget: the most frames that the text can need (`runaway_guard`), known after the last ids;
            None before, and without a guard.
    """

    def __init__(self, ids: Iterator[list[int]], budget: Callable[[], int | None]) -> None:
        self._ids, self._budget = ids, budget
        self.budget: int | None = None

    def __next__(self) -> list[int]:
        try:
            return next(self._ids)
        except StopIteration:
            self.budget = self._budget()
            raise
