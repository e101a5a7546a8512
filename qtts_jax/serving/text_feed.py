"""Feeds text that arrives in parts to an utterance that is being generated."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator

from qtts_jax.serving.engine import Engine
from qtts_jax.serving.utterance import DEFAULT_PACE, Deliver, Done, Failed, Pace, Utterance
from qtts_jax.tts.voices import VoiceRequest

log = logging.getLogger(__name__)


class TextParts(Iterator[str]):
    """Parts of a text, pushed by one thread and taken by another, which waits for them."""

    def __init__(self) -> None:
        self._parts: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ended = False

    def push(self, part: str) -> None:
        """Add a part."""
        self._parts.put(part)

    def end(self) -> None:
        """There are no more parts."""
        self._parts.put(None)

    def __next__(self) -> str:
        part = None if self._ended else self._parts.get()
        if part is None:
            self._ended = True
            raise StopIteration
        return part


class ArrivingSpeech:
    """One utterance whose text arrives while it is spoken.

    A thread of its own waits for the text, because enough of it must be there before the prompt can
    be laid out.

    Args:
        engine: generates it.
        request: its text is a `TextParts`.
        deliver: takes the events, in the thread of the engine or in this one.
        pace: as of `Engine.submit`.
    """

    def __init__(
        self,
        engine: Engine,
        request: VoiceRequest,
        deliver: Deliver,
        pace: Pace = DEFAULT_PACE,
    ) -> None:
        assert isinstance(request.text, TextParts)
        self._engine, self._text, self._deliver = engine, request.text, deliver
        self._wait = engine.tts.open(request)
        self._pace = pace
        self._lock = threading.Lock()
        self._cancelled = False
        self.utterance: Utterance | None = None
        threading.Thread(target=self._feed, name="text", daemon=True).start()

    def cancel(self) -> None:
        """Stop speaking; the last event is delivered all the same."""
        with self._lock:
            self._cancelled = True
            if self.utterance is not None:
                self._engine.cancel(self.utterance)
        self._text.end()

    def _feed(self) -> None:
        try:
            prepared, arriving = self._wait()
            with self._lock:
                if self._cancelled:
                    self._deliver(Done("cancelled"))
                    return
                self.utterance = self._engine.submit(
                    prepared,
                    self._deliver,
                    pace=self._pace,
                    open_text=arriving is not None,
                )
        except Exception as error:  # whoever waits for the last event must get it
            self._deliver(Done("cancelled") if self._cancelled else Failed(error))
            return
        try:
            for ids in arriving or ():
                self._engine.append_text(self.utterance, ids)
        except Exception as error:
            log.error("the text of an utterance failed: %s", error)
            self._engine.cancel(self.utterance)
        self._engine.end_text(self.utterance, None if arriving is None else arriving.budget)
