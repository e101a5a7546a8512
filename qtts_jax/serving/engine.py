"""Continuous batching: one thread owns the device and runs the rows of all utterances together."""

from __future__ import annotations

import contextlib
import gc
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import jax
import numpy as np

from qtts_jax.errors import BusyError, GenerationError, RequestError
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import check_finite
from qtts_jax.serving.block_audio import BlockAudio
from qtts_jax.serving.delivery import Delivery
from qtts_jax.serving.prefill import Prefill
from qtts_jax.serving.row_group import RowGroup, append_text
from qtts_jax.serving.row_programs import Rows
from qtts_jax.serving.scheduler import (
    Playing,
    admits,
    begins_alone,
    frames_of_next_program,
    pays,
)
from qtts_jax.serving.settings import EngineSettings
from qtts_jax.serving.timetable import POLL, Flight, Timetable
from qtts_jax.serving.utterance import (
    DEFAULT_PACE,
    Chunk,
    Deliver,
    Done,
    Failed,
    Pace,
    Utterance,
)
from qtts_jax.serving.warmup import empty_group, warm_up
from qtts_jax.tts.qwen_tts import QwenTTS

Result = TypeVar("Result")

# From this many rows on, and where the dispatch of a program takes this share of its time, the next
# one is dispatched before the last has ended, so that the device does not wait for the host. A row
# that ends then idles for one program.
AHEAD, HOST_SHARE = 2, 0.1

_NOT_READY = "the server is stopping or not ready yet; try again later."


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
        self._makes_blocks = not self.settings.offline and not self._prefill.audio_in_rows
        self._chunk_frames = self.settings.chunk_frames
        if self._makes_blocks:  # a short first chunk does not complete a block of audio
            self._chunk_frames = self._chunk_frames[-1:]
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting: deque[Utterance] = deque()
        # Taken out of the batch until more of their text arrives, and those whose text has.
        self._parked: dict[Utterance, Rows] = {}
        self._times = Timetable()
        # Dispatched programs whose results were not taken yet.
        self._flights: deque[Flight] = deque()
        # Whether utterances were admitted since the last frames of the batch.
        self._admitted = False
        self._prefill_rows = min(self.settings.prefill_sizes[-1], self.settings.rows[-1])
        self._delivery = Delivery(
            tts.speech_tokenizer.samples_per_frame, self.seconds_per_frame, self.settings.offline
        )
        self._stopping = False
        self._unfinished: set[Utterance] = set()
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._broken: Exception | None = None
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)
        self._group: RowGroup

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
        return self._ready.is_set() and not self._stopping and self._broken is None

    @property
    def healthy(self) -> bool:
        """Whether the engine works or is still starting."""
        return self._broken is None

    @property
    def waiting(self) -> int:
        """Requests that have no row yet."""
        return sum(utterance.started is None for utterance in self._unfinished_now())

    @property
    def running(self) -> int:
        """Requests that have a row, or wait for their text."""
        return sum(utterance.started is not None for utterance in self._unfinished_now())

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
        with self._lock:
            if not self.ready:
                raise BusyError(_NOT_READY)
            waiting = sum(other.started is None for other in self._unfinished)
            if waiting >= self.settings.max_waiting:
                raise BusyError(f"{waiting} requests are waiting already; try again later.")
            self._unfinished.add(utterance)
        self._inbox.put(partial(self._enqueue, utterance))
        return utterance

    def append_text(self, utterance: Utterance, ids: Sequence[int]) -> None:
        """Add text ids to an utterance with `open_text`."""
        self._inbox.put(partial(self._append_text, utterance, list(ids)))

    def end_text(self, utterance: Utterance, budget: int | None = None) -> None:
        """No more text ids will come.

        Args:
            budget: the most frames that the whole text can need (`ArrivingIds.budget`).
        """
        self._inbox.put(partial(self._end_text, utterance, budget))

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
            raise BusyError(_NOT_READY)
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
        with self._lock:
            self._stopping = True
        self._inbox.put(lambda: None)
        self._thread.join(seconds)
        for utterance in self._unfinished_now():
            self.cancel(utterance)
        self._thread.join()

    def _unfinished_now(self) -> list[Utterance]:
        with self._lock:
            return list(self._unfinished)

    # What follows runs in the engine's thread.

    def _main(self) -> None:
        try:
            begin = empty_group if self.settings.offline else warm_up
            self._group = begin(self._prefill)
            self._times.expect(self._group.seconds)
            if not self.settings.offline:
                # Python would go through all that the compilations have left from time to time, and
                # stop every row for half a second.
                gc.collect()
                gc.freeze()
            self._ready.set()
            while self._serve_once():
                pass
        except Exception as error:  # no client may wait for a thread that is gone
            self._broken = error
            for utterance in self._unfinished_now():
                self._end(utterance, Failed(error))
            self._ready.set()
        self._delivery.send()
        if not self.settings.offline:
            gc.unfreeze()

    def _serve_once(self) -> bool:
        """Take what clients sent, then run one program; False when the engine has stopped."""
        self._take_flights(ready=True)
        self._take_inbox()
        self._drop_cancelled()
        self._park_and_return()
        now = time.monotonic()
        playing = [
            Playing(utterance.runs_dry(self.seconds_per_frame), utterance.next_frames)
            for utterance in self._group.running
            if utterance.frames < utterance.max_frames
        ]
        following = self._next_waiting()
        if following and self._admits(following, playing, now):
            for utterance in following:
                self._waiting.remove(utterance)
            self._admit(following)
            return True
        ahead = False
        if playing:
            cost = partial(self._times.program, self._group.size)
            played = 0.0 if self.settings.offline else self.seconds_per_frame
            sizes = self.settings.chunk_frames
            frames = frames_of_next_program(sizes, playing, now, cost, played)
            begin = time.monotonic()
            codes, wave = self._group.run(frames)
            self._dispatched(codes, wave, self._group.tenants, frames, begin)
            self._admitted = False
            ahead = self._works_ahead(self._flights[-1])
        self._take_flights(leave=int(ahead))
        return not self._stopping or bool(self._unfinished)

    def _dispatched(
        self,
        codes: jax.Array,
        wave: jax.Array | None,
        tenants: Sequence[Utterance | None],
        frames: int,
        begin: float,
    ) -> None:
        """Count a program, and deliver while the device works."""
        flight = self._times.dispatched(codes, wave, list(tenants), frames, begin)
        self._flights.append(flight)
        self._delivery.send()

    def _take_flights(self, *, leave: int = 0, ready: bool = False) -> None:
        """Take the results of programs, the oldest first.

        Args:
            leave: so many of the newest are left.
            ready: take those alone that have ended; otherwise wait for them.
        """
        while len(self._flights) > leave and (not ready or self._flights[0].codes.is_ready()):
            self._take_results(self._flights.popleft())
            if self._flights:
                self._delivery.send()

    def _works_ahead(self, flight: Flight) -> bool:
        """Whether the next program is dispatched before this one has ended.

        A single row would have to wait for it, and decoders of blocks wait for all programs.
        """
        several = len(self._group.running) >= AHEAD and not self._makes_blocks
        return several and self._times.host_share(flight) >= HOST_SHARE

    def _admits(self, waiting: list[Utterance], playing: list[Playing], now: float) -> bool:
        """Whether to prefill these requests before the next frames."""
        prefill = self._times.prefill(self._prefill.rows_for(len(waiting)))
        together = len(waiting) < self._prefill_rows
        waited = [now - utterance.submitted for utterance in waiting]
        if together and not pays(waited, len(playing), prefill):
            return False
        expected = prefill + self._times.program(self._group.size, 1)
        return admits(playing, now, expected, self._admitted)

    def _take_inbox(self) -> None:
        """Do what is in the inbox; wait for it when there is nothing else to do."""
        if self._flights:
            if not self._admitted:
                self._wait_for(self._flights[-1])
        elif not self._waiting and not self._group.running:
            self._delivery.send()
            self._times.forget_prefills()
            self._admitted = False
            if not (self._stopping and not self._unfinished):
                self._inbox.get()()
        while True:
            try:
                self._inbox.get_nowait()()
            except queue.Empty:
                return

    def _wait_for(self, flight: Flight) -> None:
        """Do what arrives until the program after this one has to be dispatched."""
        while not flight.codes.is_ready():
            lead = self._times.lead(self._group.size, bool(self._waiting))
            if time.monotonic() > flight.end - lead:
                return
            with contextlib.suppress(queue.Empty):
                self._inbox.get(timeout=POLL)()

    def _enqueue(self, utterance: Utterance) -> None:
        if utterance.ended is None:  # it may have been cancelled already
            self._waiting.append(utterance)

    def _drop_cancelled(self) -> None:
        for utterance in self._unfinished_now():
            if utterance.cancelled:
                self._end(utterance, Done("cancelled"))

    def _append_text(self, utterance: Utterance, ids: list[int]) -> None:
        """Append text to the row of an utterance, wherever that is."""
        if utterance.ended is not None:
            return
        utterance.text_ids += len(ids)
        if utterance.text_ids > self.settings.max_text:
            error = RequestError(
                f"the text is longer than the {self.settings.max_text} ids that this server "
                "allows; begin another request."
            )
            self._end(utterance, Failed(error))
        elif utterance.started is None:
            utterance.early_ids += ids
        elif utterance in self._parked:
            rows = self._parked[utterance]
            self._parked[utterance] = append_text(self._prefill, rows, 0, ids)
        else:
            self._group.append_text(utterance, ids)

    def _end_text(self, utterance: Utterance, budget: int | None) -> None:
        utterance.open_text, utterance.budget = False, budget
        if utterance.ended is None and utterance.made >= utterance.max_frames:
            self._end(utterance, Done("length"))

    def _park_and_return(self) -> None:
        """Take rows without text for their next frame out of the batch; put back those with it."""
        for utterance in self._group.running:
            if utterance.next_frames < 1:
                self._parked[utterance] = self._group.take(utterance)
        for utterance, rows in list(self._parked.items()):
            if utterance.next_frames > 0 and self._group.free:
                del self._parked[utterance]
                self._group.add([utterance], rows)

    def _next_waiting(self) -> list[Utterance]:
        """The first that waits and those behind it whose prompts fit its padded length.

        They are as many as have free rows and are prefilled by one program.
        """
        most = min(self.settings.prefill_sizes[-1], self._group.free)
        if not self._waiting or not most:
            return []
        positions = self._prefill.positions(self._waiting[0].request)
        fitting = (
            utterance
            for utterance in self._waiting
            if self._prefill.positions(utterance.request) <= positions
        )
        return list(itertools.islice(fitting, most))

    def _admit(self, utterances: list[Utterance]) -> None:
        begin = time.monotonic()
        try:
            rows = self._prefill([utterance.request for utterance in utterances])
            decoders = [self._decoder(utterance) for utterance in utterances]
        except Exception as error:  # the fault of one request must not end the others
            if len(utterances) == 1:
                self._end(utterances[0], Failed(error))
                return
            for utterance in utterances:
                self._admit([utterance])
            return
        self._times.prefilled(len(rows.state.done), begin)
        self._admitted = True
        for utterance, decoder in zip(utterances, decoders, strict=True):
            utterance.started, utterance.decoder = begin, decoder
        if self._begin_alone(utterances, rows):
            rows = self._run_alone(utterances, rows)
        moving = time.monotonic()
        self._group.add(utterances, rows)
        self._times.moved(moving)
        for utterance in utterances:
            if utterance.early_ids:
                self._group.append_text(utterance, utterance.early_ids)
        self._prefill.get_ready(len(utterances))
        self._times.admitted(begin)
        self._delivery.send()

    def _begin_alone(self, utterances: Sequence[Utterance], rows: Rows) -> bool:
        """Whether the first frames of new rows are made before these join the batch."""
        has_text = all(
            utterance.next_frames > 0 and not utterance.early_ids for utterance in utterances
        )
        running, new = len(self._group.running), len(utterances)
        if not (running and self._prefill.audio_in_rows and has_text):
            return False
        alone = self._times.program(len(rows.state.done), 1)
        together = self._times.program(self._group.size_with(new), 1)
        saved = together - alone + self._times.move
        pays = begins_alone(new, running, alone, saved)
        return pays and self._group.can_run_alone(utterances, rows)

    def _run_alone(self, utterances: Sequence[Utterance], rows: Rows) -> Rows:
        """Dispatch the first frame of new rows before they join the batch; returns the rows."""
        begin = time.monotonic()
        codes, wave, rows = self._group.run_alone(utterances, rows)
        free = len(rows.state.done) - len(utterances)
        self._dispatched(codes, wave, [*utterances, *[None] * free], 1, begin)
        return rows

    def _decoder(self, utterance: Utterance) -> BlockAudio | None:
        """Makes the audio of an utterance; None where the programs of the rows do."""
        if not self._makes_blocks:
            return None
        return BlockAudio(self.tts.speech_tokenizer, utterance.request, utterance.whole)

    def _take_results(self, flight: Flight) -> None:
        """Wait for a program, and take its codes and audio."""
        codes = np.asarray(flight.codes)
        wave = np.zeros((len(codes), 0), np.float32)  # [B, samples]
        if flight.wave is not None:
            wave = np.asarray(flight.wave)
        self._times.ended(flight)
        samples = wave.shape[1] // flight.frames
        generated = np.sum(codes[..., 0] >= 0, axis=1).tolist()
        for row, utterance in enumerate(flight.tenants):
            if utterance is not None and utterance.ended is None:
                self._take_chunk(utterance, codes[row], wave[row], samples, generated[row])

    def _take_chunk(
        self,
        utterance: Utterance,
        codes: np.ndarray,
        wave: np.ndarray,
        samples: int,
        generated: int,
    ) -> None:
        """Take a row's part of a program for delivery, and free the row at its last frame.

        Args:
            codes: [T, Q], negative after the last frame.
            wave: [T * samples], the audio that the rows have made.
            samples: per frame; 0 where they make none.
            generated: frames that have codes.
        """
        if generated < len(codes):
            try:
                check_finite(codes[None])
            except GenerationError as error:
                self._end(utterance, Failed(error))
                return
        made = min(generated, utterance.max_frames - utterance.made)
        if made:
            utterance.made += made
            decoder, new = utterance.decoder, codes[:made]
            audio = wave[: made * samples] if decoder is None else decoder.push(new)
            self._delivery.hold(utterance, Chunk(audio, new))
            if self._delivery.is_due(utterance, self._group.size):
                self._delivery.release(utterance)
        if utterance.made >= utterance.max_frames:
            self._end(utterance, Done("length"))
        elif generated < len(codes):
            self._end(utterance, Done("stop"))

    def _end(self, utterance: Utterance, event: Done | Failed) -> None:
        """Free all that an utterance holds and deliver what is held and its last event."""
        complete = isinstance(event, Done) and event.reason != "cancelled"
        if complete and utterance.decoder is not None and utterance.made:
            rest = utterance.decoder.finish()
            self._delivery.hold(utterance, Chunk(rest, np.zeros((0, 1), np.int32)))
        self._delivery.end(utterance, event)
        if utterance in self._group.running:
            self._group.remove(utterance)
        elif utterance in self._waiting:
            self._waiting.remove(utterance)
        self._parked.pop(utterance, None)
        utterance.ended = time.monotonic()
        with self._lock:
            self._unfinished.discard(utterance)
