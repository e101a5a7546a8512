"""The engine's loop: admits requests to the batch, runs it, and takes its results."""

from __future__ import annotations

import contextlib
import itertools
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np

from qtts_jax.errors import GenerationError, RequestError
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
from qtts_jax.serving.timetable import POLL, Flight, Timetable
from qtts_jax.serving.unfinished import Unfinished
from qtts_jax.serving.utterance import Chunk, Done, Failed, Utterance
from qtts_jax.serving.warmup import empty_group, warm_up

# From this many rows on, and where the dispatch of a program takes this share of its time, the next
# one is dispatched before the last has ended, so that the device does not wait for the host. A row
# that ends then idles for one program.
AHEAD, HOST_SHARE = 2, 0.1

Inbox = queue.SimpleQueue[Callable[[], None]]


class Loop:
    """Everything that happens in the engine's thread; no other may call it.

    Args:
        prefill: makes the rows; its settings are the engine's.
        seconds_per_frame: of audio.
        inbox: calls of other threads, in their order.
        unfinished: utterances that other threads count.
    """

    def __init__(
        self, prefill: Prefill, seconds_per_frame: float, inbox: Inbox, unfinished: Unfinished
    ) -> None:
        self.tts, self.settings, self.prefill = prefill.tts, prefill.settings, prefill
        self.seconds_per_frame = seconds_per_frame
        self._inbox, self._unfinished = inbox, unfinished
        self._waiting: deque[Utterance] = deque()
        # Taken out of the batch until more of their text arrives, and those whose text has.
        self._parked: dict[Utterance, Rows] = {}
        self._times = Timetable()
        # Dispatched programs whose results were not taken yet.
        self._flights: deque[Flight] = deque()
        # Whether utterances were admitted since the last frames of the batch.
        self._admitted = False
        self._delivery = Delivery(
            self.tts.speech_tokenizer.samples_per_frame, seconds_per_frame, self.settings.offline
        )
        self.group: RowGroup

    def begin(self) -> None:
        """Compile every program; none offline."""
        begin = empty_group if self.settings.offline else warm_up
        self.group = begin(self.prefill)
        self._times.expect(self.group.seconds)

    def fail(self, error: Exception) -> None:
        """End all utterances with an error."""
        for utterance in self._unfinished.now():
            self._end(utterance, Failed(error))

    def deliver(self) -> None:
        """Deliver what had time until now."""
        self._delivery.send()

    def serve_once(self) -> None:
        """Take what clients sent, then run one program; without work, wait for clients."""
        self._take_flights(ready=True)
        self._take_inbox()
        self._drop_cancelled()
        self._park_and_return()
        now = time.monotonic()
        playing = [
            Playing(self._runs_dry(utterance, now), utterance.next_frames)
            for utterance in self.group.running
            if utterance.frames < utterance.max_frames
        ]
        following = self._next_waiting()
        if following and self._admits(following, playing, now):
            for utterance in following:
                self._waiting.remove(utterance)
            self._admit(following)
            return
        ahead = False
        if playing:
            cost = partial(self._times.program, self.group.size)
            played = self.seconds_per_frame * self.prefill.audio_in_rows
            sizes = self.settings.chunk_frames
            frames = frames_of_next_program(sizes, playing, now, cost, played)
            begin = time.monotonic()
            codes, wave = self.group.run(frames)
            self._dispatched(codes, wave, self.group.tenants, frames, begin)
            self._admitted = False
            ahead = self._works_ahead(self._flights[-1])
        self._take_flights(leave=int(ahead))

    def _runs_dry(self, utterance: Utterance, now: float) -> float | None:
        """When a client has no more audio; None for one whose first audio is not on its way."""
        plays_at_once = self.prefill.audio_in_rows and not utterance.prebuffer
        if utterance.made or not (utterance.frames and self._flights and plays_at_once):
            return utterance.runs_dry(self.seconds_per_frame)
        return max(now, self._flights[-1].end) + utterance.frames * self.seconds_per_frame

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
        several = len(self.group.running) >= AHEAD and not self.prefill.makes_blocks
        return several and self._times.host_share(flight) >= HOST_SHARE

    def _admits(self, waiting: list[Utterance], playing: list[Playing], now: float) -> bool:
        """Whether to prefill these requests before the next frames."""
        prefill = self._times.prefill(self.prefill.rows_for(len(waiting)))
        together = len(waiting) < self.prefill.most
        waited = [now - utterance.submitted for utterance in waiting]
        if together and not pays(waited, len(playing), prefill):
            return False
        expected = prefill + self._times.program(self.group.size, 1)
        return admits(playing, now, expected, self._admitted)

    def _take_inbox(self) -> None:
        """Do what is in the inbox; wait for it when there is nothing else to do."""
        if self._flights:
            if not self._admitted:
                self._wait_for(self._flights[-1])
        elif not self._waiting and not self.group.running:
            self._delivery.send()
            self._times.forget_prefills()
            self._admitted = False
            self._inbox.get()()
        while True:
            try:
                self._inbox.get_nowait()()
            except queue.Empty:
                return

    def _wait_for(self, flight: Flight) -> None:
        """Do what arrives until the program after this one has to be dispatched."""
        while not flight.codes.is_ready():
            lead = self._times.lead(self.group.size, bool(self._waiting))
            if time.monotonic() > flight.end - lead:
                return
            with contextlib.suppress(queue.Empty):
                self._inbox.get(timeout=POLL)()

    def enqueue(self, utterance: Utterance) -> None:
        """Let a new utterance wait for a row."""
        if utterance.ended is None:  # it may have been cancelled already
            self._waiting.append(utterance)

    def _drop_cancelled(self) -> None:
        for utterance in self._unfinished.now():
            if utterance.cancelled:
                self._end(utterance, Done("cancelled"))

    def append_text(self, utterance: Utterance, ids: list[int]) -> None:
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
            self._parked[utterance] = append_text(self.prefill, rows, 0, ids)
        else:
            self.group.append_text(utterance, ids)

    def end_text(self, utterance: Utterance, budget: int | None) -> None:
        """No more text will come; see `Engine.end_text`."""
        utterance.open_text, utterance.budget = False, budget
        if utterance.ended is None and utterance.made >= utterance.max_frames:
            self._end(utterance, Done("length"))

    def _park_and_return(self) -> None:
        """Take rows without text for their next frame out of the batch; put back those with it."""
        for utterance in self.group.running:
            if utterance.next_frames < 1:
                self._parked[utterance] = self.group.take(utterance)
        for utterance, rows in list(self._parked.items()):
            if utterance.next_frames > 0 and self.group.free:
                del self._parked[utterance]
                self.group.add([utterance], rows)

    def _next_waiting(self) -> list[Utterance]:
        """The first that waits and those behind it whose prompts fit its padded length.

        They are as many as have free rows and are prefilled by one program.
        """
        most = min(self.prefill.most, self.group.free)
        if not self._waiting or not most:
            return []
        positions = self.prefill.positions(self._waiting[0].request)
        fitting = (
            utterance
            for utterance in self._waiting
            if self.prefill.positions(utterance.request) <= positions
        )
        return list(itertools.islice(fitting, most))

    def _admit(self, utterances: list[Utterance]) -> None:
        begin = time.monotonic()
        try:
            rows = self.prefill([utterance.request for utterance in utterances])
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
        self.group.add(utterances, rows)
        self._times.moved(moving)
        for utterance in utterances:
            if utterance.early_ids:
                self.group.append_text(utterance, utterance.early_ids)
        self.prefill.get_ready(len(utterances))
        self._times.admitted(begin)
        self._delivery.send()

    def _begin_alone(self, utterances: Sequence[Utterance], rows: Rows) -> bool:
        """Whether the first frames of new rows are made before these join the batch."""
        has_text = all(
            utterance.next_frames > 0 and not utterance.early_ids for utterance in utterances
        )
        running, new = len(self.group.running), len(utterances)
        if not (running and self.prefill.audio_in_rows and has_text):
            return False
        alone = self._times.program(len(rows.state.done), 1)
        together = self._times.program(self.group.size_with(new), 1)
        saved = together - alone + self._times.move
        pays = begins_alone(new, running, alone, saved)
        return pays and self.group.can_run_alone(utterances, rows)

    def _run_alone(self, utterances: Sequence[Utterance], rows: Rows) -> Rows:
        """Dispatch the first frame of new rows before they join the batch; returns the rows."""
        begin = time.monotonic()
        codes, wave, rows = self.group.run_alone(utterances, rows)
        free = len(rows.state.done) - len(utterances)
        self._dispatched(codes, wave, [*utterances, *[None] * free], 1, begin)
        return rows

    def _decoder(self, utterance: Utterance) -> BlockAudio | None:
        """Makes the audio of an utterance; None where the programs of the rows do."""
        if not self.prefill.makes_blocks:
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
            if self._delivery.is_due(utterance, self.group.size):
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
        if utterance in self.group.running:
            self.group.remove(utterance)
        elif utterance in self._waiting:
            self._waiting.remove(utterance)
        self._parked.pop(utterance, None)
        utterance.ended = time.monotonic()
        self._unfinished.remove(utterance)
