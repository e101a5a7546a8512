"""Continuous batching: one thread owns the device and runs the rows of all utterances together."""

from __future__ import annotations

import contextlib
import gc
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from qtts_jax.errors import BusyError, RequestError
from qtts_jax.generation.request import Request
from qtts_jax.serving.loop import Inbox, Loop
from qtts_jax.serving.prefill import Prefill
from qtts_jax.serving.settings import EngineSettings
from qtts_jax.serving.unfinished import NOT_READY, Unfinished
from qtts_jax.serving.utterance import DEFAULT_PACE, Deliver, Pace, Utterance
from qtts_jax.tts.qwen_tts import QwenTTS

Result = TypeVar("Result")

# The longest that a thread keeps the interpreter while another wants it.
SWITCH_SECONDS = 0.0005


class Engine:
    """Generates many utterances at once on one device, or on a mesh of this process.

    An utterance is prefilled with those that wait beside it, put into a free row of the running
    batch, and leaves it at the end of a device program; all rows run in the same programs. Its
    codes are those that `QwenTTS.synthesize` gives for the request, whatever runs beside it.
    Methods may be called from any thread.

    Args:
        tts: a checkpoint.
        settings: sizes and limits.

    Raises:
        RequestError: the checkpoint is on devices of several processes.
    """

    def __init__(self, tts: QwenTTS, settings: EngineSettings | None = None) -> None:
        self.tts, self.settings = tts, settings or EngineSettings()
        self.seconds_per_frame = (
            tts.speech_tokenizer.samples_per_frame / tts.speech_tokenizer.sample_rate
        )
        self._prefill = Prefill(tts, self.settings)
        self._chunk_frames = self.settings.chunk_frames
        if self._prefill.makes_blocks:  # a short first chunk does not complete a block of audio
            self._chunk_frames = self._chunk_frames[-1:]
        self._inbox: Inbox = queue.SimpleQueue()
        self._unfinished = Unfinished()
        self._loop = Loop(self._prefill, self.seconds_per_frame, self._inbox, self._unfinished)
        self._ready = threading.Event()
        self._broken: Exception | None = None
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)

    def start(self) -> None:
        """Compile every program (none offline) and begin to serve; returns when it is ready.

        Raises:
            Exception: what made the warm-up fail.
        """
        self._thread.start()
        self._ready.wait()
        if self._broken is not None:
            raise self._broken

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self._ready.is_set() and not self._unfinished.closed

    @property
    def healthy(self) -> bool:
        """Whether the engine works or is still starting."""
        return self._broken is None

    @property
    def waiting(self) -> int:
        """Requests that have no row yet."""
        return self._unfinished.waiting

    @property
    def running(self) -> int:
        """Requests that have a row, or wait for their text."""
        return self._unfinished.running

    def submit(
        self,
        request: Request,
        deliver: Deliver,
        *,
        pace: Pace = DEFAULT_PACE,
        open_text: bool = False,
    ) -> Utterance:
        """Queue a request.

        Args:
            request: made by `QwenTTS.prepare`.
            deliver: takes the events: chunks, then one `Done` or `Failed`. The engine's thread
                calls it, so it must return at once.
            pace: when its audio is to be delivered.
            open_text: more text ids will come by `append_text`, until `end_text`.

        Raises:
            BusyError: the queue is full, or the engine is stopping.
            RequestError: the request is beyond the engine's limits.
        """
        wished = pace.chunk_frames
        sizes = self._chunk_frames if wished is None else tuple(wished)
        if not sizes or min(sizes) < 1:
            raise RequestError(f"chunk_frames must be whole numbers from 1, not {wished!r}.")
        request, needs = self._prefill.checked(request)
        text_ids = len(request.prompt.trailing)
        utterance = Utterance(
            request,
            needs,
            sizes,
            open_text,
            deliver,
            text_ids,
            self.tts.config.talker.lag,
            pace.prebuffer,
            pace.whole,
        )
        if not self.ready:
            raise BusyError(NOT_READY)
        self._unfinished.add(utterance, self.settings.max_waiting)
        self._inbox.put(partial(self._loop.enqueue, utterance))
        return utterance

    def append_text(self, utterance: Utterance, ids: Sequence[int]) -> None:
        """Add text ids to an utterance with `open_text`."""
        self._inbox.put(partial(self._loop.append_text, utterance, list(ids)))

    def end_text(self, utterance: Utterance, budget: int | None = None) -> None:
        """No more text ids will come.

        Args:
            budget: the most frames that the whole text can need (`ArrivingIds.budget`).
        """
        self._inbox.put(partial(self._loop.end_text, utterance, budget))

    def cancel(self, utterance: Utterance) -> None:
        """Free the row of an utterance before the next device program."""
        utterance.cancelled = True
        self._inbox.put(lambda: None)  # wakes an idle engine

    def call(self, function: Callable[[], Result]) -> Future[Result]:
        """Run a function that uses the device in the engine's thread, between two programs.

        Raises:
            BusyError: the engine is stopping or not ready.
        """
        if not self.ready:
            raise BusyError(NOT_READY)
        future: Future[Result] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except Exception as error:  # it belongs to the caller
                future.set_exception(error)

        self._inbox.put(run)
        return future

    def stop(self, seconds: float | None = None) -> None:
        """Take no more requests, finish those there are, and end the thread.

        Args:
            seconds: after this time, cancel what is left; None waits for all.
        """
        self._unfinished.close()
        self._inbox.put(lambda: None)
        self._thread.join(seconds)
        for utterance in self._unfinished.now():
            self.cancel(utterance)
        self._thread.join()

    def _main(self) -> None:
        """What the engine's thread does."""
        try:
            self._loop.begin()
            with contextlib.nullcontext() if self.settings.offline else _interpreter_for_serving():
                self._ready.set()
                while self._unfinished or not self._unfinished.closed:
                    self._loop.serve_once()
        except Exception as error:  # no client may wait for a thread that is gone
            self._broken = error
            self._unfinished.close()
            self._loop.fail(error)
            self._ready.set()
        self._loop.deliver()


@contextlib.contextmanager
def _interpreter_for_serving() -> Iterator[None]:
    """Python settings with which a thread is not kept waiting.

    Python would go through all that the compilations have left from time to time, and stop every
    row for half a second; and other threads would keep the interpreter for 5 ms when the device is
    done.
    """
    interval = sys.getswitchinterval()
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.unfreeze()
