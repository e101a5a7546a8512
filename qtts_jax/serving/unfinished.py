"""Utterances that were submitted and have not ended, counted from any thread."""

from __future__ import annotations

import threading

from qtts_jax.errors import BusyError
from qtts_jax.serving.utterance import Utterance

NOT_READY = "the server is stopping or not ready yet; try again later."


class Unfinished:
    """A set of utterances behind a lock."""

    def __init__(self) -> None:
        self._utterances: set[Utterance] = set()
        self._lock = threading.Lock()
        self._closed = False

    def __bool__(self) -> bool:
        return bool(self._utterances)

    @property
    def closed(self) -> bool:
        """Whether none is taken any more."""
        return self._closed

    @property
    def waiting(self) -> int:
        """Utterances that have no row yet."""
        return sum(utterance.started is None for utterance in self.now())

    @property
    def running(self) -> int:
        """Utterances that have a row, or wait for their text."""
        return sum(utterance.started is not None for utterance in self.now())

    def now(self) -> list[Utterance]:
        """The utterances."""
        with self._lock:
            return list(self._utterances)

    def add(self, utterance: Utterance, most_waiting: int) -> None:
        """Take an utterance.

        Args:
            most_waiting: utterances that may be without a row, this one among them.

        Raises:
            BusyError: too many wait, or none is taken any more.
        """
        with self._lock:
            if self._closed:
                raise BusyError(NOT_READY)
            waiting = sum(other.started is None for other in self._utterances)
            if waiting >= most_waiting:
                raise BusyError(f"{waiting} requests are waiting already; try again later.")
            self._utterances.add(utterance)

    def remove(self, utterance: Utterance) -> None:
        """Forget an utterance that has ended."""
        with self._lock:
            self._utterances.discard(utterance)

    def close(self) -> None:
        """Take no more; those that are there stay until they end."""
        with self._lock:
            self._closed = True
