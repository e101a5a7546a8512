"""The running batch: utterances in the rows of one state on the device."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from qtts_jax.generation.device_params import gather_text_rows
from qtts_jax.generation.programs import programs
from qtts_jax.generation.sampling import SamplingPlan
from qtts_jax.serving.prefill import APPEND, Prefill
from qtts_jax.serving.row_programs import Rows, row_programs
from qtts_jax.serving.sampling_plans import PLANS, plan_of
from qtts_jax.serving.settings import at_least
from qtts_jax.serving.utterance import Utterance
from qtts_jax.speech_tokenizer.programs_speech import frames_and_audio_program

# Programs for which a smaller batch must suffice before the rows are packed into it.
PATIENCE = 8
# Runs of a program at warm-up.
RUNS = 4


class RowGroup:
    """Rows of one batch size and one cache capacity, both of few values, changed as needed.

    Args:
        prefill: makes the rows.
        blank: rows that generate no frame; the first of them fills the batch.

    Attributes:
        tenants: the utterance of each row, None in free ones.
        seconds: of programs by their rows and frames, measured by `every_program`.
    """

    def __init__(self, prefill: Prefill, blank: Rows) -> None:
        config, mesh = prefill.tts.config, prefill.mesh
        self._prefill = prefill
        self._sizes = sorted({prefill.whole_rows(size) for size in prefill.settings.rows})
        self._capacities = prefill.capacities
        self._programs = row_programs(config, mesh)
        self._blank = self._programs.take(blank, np.zeros(1, np.int32))
        self._frames = programs(config, mesh).run
        if prefill.audio_in_rows:
            codec = prefill.tts.speech_tokenizer
            self._frames_and_audio = frames_and_audio_program(config, codec.config, mesh)
            self._decoder = codec.part("decoder")
        # Positions of a row before its first frame, beside those of its prompt.
        self._lag = config.talker.lag
        self._blank_positions = int(np.asarray(self._blank.state.talker.position)[0]) + self._lag
        self._rows: Rows
        self.tenants: list[Utterance | None]
        # Filled cache positions of each row; free rows run along, so theirs count as well.
        self._positions: list[int]
        # Programs since when the next smaller batch would do.
        self._too_large_for = 0
        self.seconds: dict[tuple[int, int], float] = {}
        self.clear()

    @property
    def running(self) -> list[Utterance]:
        """The utterances, in the order of their rows."""
        return [tenant for tenant in self.tenants if tenant is not None]

    @property
    def size(self) -> int:
        """Rows of the device programs."""
        return len(self.tenants)

    @property
    def free(self) -> int:
        """Utterances that can be added."""
        return self._sizes[-1] - len(self.running)

    def size_with(self, requests: int) -> int:
        """Rows of the programs once so many requests are added."""
        return max(self.size, at_least(self._sizes, len(self.running) + requests))

    def can_run_alone(self, utterances: Sequence[Utterance], new: Rows) -> bool:
        """Whether there is a program for the first frame of rows before they are added.

        Args:
            utterances, new: as of `add`.
        """
        room = max(self._filled(utterance) for utterance in utterances) < _capacity(new)
        return room and len(new.state.done) in self._sizes

    def run_alone(
        self, utterances: Sequence[Utterance], new: Rows
    ) -> tuple[jax.Array, jax.Array | None, Rows]:
        """Dispatch the first frame of rows that are not in the batch yet.

        Args:
            utterances, new: as of `add`.

        Returns:
            Codes and samples as of `run`, and the rows after them.
        """
        return self._run(new, utterances, 1)

    def add(self, utterances: Sequence[Utterance], new: Rows) -> None:
        """Put utterances into free rows.

        Args:
            new: their states, in their order; further rows are left out.
        """
        if not self.running and self._is_batch(new):
            self._become(utterances, new)
            return
        while self.tenants.count(None) < len(utterances):
            larger = at_least(self._sizes, self.size + 1)
            self._reorder([*range(self.size), *[0] * (larger - self.size)])
        self._set_capacity(max(self._capacity, _capacity(new)))
        if _text_room(new) > _text_room(self._rows):
            self._rows = self._programs.with_text_room(self._rows, _text_room(new))
        free = [row for row, tenant in enumerate(self.tenants) if tenant is None]
        index = np.full(len(new.state.done), self.size, np.int32)
        index[: len(utterances)] = free[: len(utterances)]
        self._rows = self._programs.insert(self._rows, new, index)
        for row, utterance in zip(free, utterances, strict=False):
            self.tenants[row] = utterance
            self._positions[row] = self._filled(utterance)

    def _is_batch(self, new: Rows) -> bool:
        """Whether these rows are of a shape that the batch may have."""
        rooms = _text_room(new), _text_room(self._rows)
        return len(new.state.done) in self._sizes and rooms[0] == rooms[1]

    def _become(self, utterances: Sequence[Utterance], new: Rows) -> None:
        """Make these rows the batch: nothing has to be moved into an empty one."""
        free = len(new.state.done) - len(utterances)
        self._rows, self._too_large_for = new, 0
        self.tenants = [*utterances, *[None] * free]
        # Rows without an utterance have no more positions than the longest prompt.
        filled = [self._filled(utterance) for utterance in utterances]
        self._positions = [*filled, *[max(filled)] * free]

    def _filled(self, utterance: Utterance) -> int:
        return len(utterance.request.prompt) + self._lag + utterance.frames

    def remove(self, utterance: Utterance) -> None:
        """Free the row of an utterance."""
        self.tenants[self.tenants.index(utterance)] = None

    def take(self, utterance: Utterance) -> Rows:
        """Free the row of an utterance and return its state, batch 1, for a later `add`."""
        row = self.tenants.index(utterance)
        self.tenants[row] = None
        return self._programs.take(self._rows, np.asarray([row], np.int32))

    def append_text(self, utterance: Utterance, ids: Sequence[int]) -> None:
        """Add text ids after those that an utterance has."""
        row = self.tenants.index(utterance)
        self._rows = append_text(self._prefill, self._rows, row, ids)

    def run(self, frames: int) -> tuple[jax.Array, jax.Array | None]:
        """Dispatch `frames` more frames of every row, and their audio where the rows make it.

        Returns:
            codes [B, frames, Q] int32, negative where a row has no frame, and samples [B, n]
            float32; None instead of these where the rows make codes alone.
        """
        self._pack()
        self._make_room(frames)
        self._positions = [position + frames for position in self._positions]
        codes, wave, self._rows = self._run(self._rows, self.running, frames)
        return codes, wave

    def _run(
        self, rows: Rows, utterances: Sequence[Utterance], frames: int
    ) -> tuple[jax.Array, jax.Array | None, Rows]:
        for utterance in utterances:
            utterance.frames += frames
            utterance.chunks += 1
        plan = plan_of(utterance.needs for utterance in utterances)
        codes, wave, rows = self._dispatch(rows, frames, plan)
        for result in (codes, wave):
            if result is not None:
                result.copy_to_host_async()  # as soon as it is there
        return codes, wave, rows

    def _dispatch(
        self, rows: Rows, frames: int, plan: SamplingPlan
    ) -> tuple[jax.Array, jax.Array | None, Rows]:
        params, (conditions, state, audio) = self._prefill.tts.params, rows
        options = {"methods": plan, "frames": frames}
        wave: jax.Array | None = None
        if not self._prefill.audio_in_rows:
            codes, state = self._frames(params, conditions, state, **options)
        else:
            codes, wave, state, audio = self._frames_and_audio(
                params, self._decoder, conditions, state, audio, **options
            )
        return codes, wave, Rows(conditions, state, audio)

    def every_program(self, frames: Sequence[int], prefilled: Sequence[Rows]) -> Iterator[str]:
        """Run every program that any course of events needs, on blank rows; yields their names.

        Args:
            frames: all numbers that `run` will be given.
            prefilled: rows of all shapes that `add` will be given, beside those of `take`.
        """
        one = [self._programs.with_capacity(self._blank, c) for c in self._capacities]
        for size in self._sizes:
            index = np.zeros(size, np.int32)
            for i, capacity in enumerate(self._capacities):
                name = f"{size} rows of {capacity} positions"
                self._rows = self._programs.take(one[i], index)
                for n, plan in itertools.product(frames, PLANS):
                    yield f"{name}, {n} frames"
                    # The first run compiles, and the second may still prepare launches.
                    seconds = min(self._run_blank(n, plan) for _ in range(RUNS))
                    self.seconds.setdefault((size, n), seconds)
                yield f"{name}, moving rows"
                for new in [*one, *prefilled]:
                    if _capacity(new) <= capacity:
                        nowhere = np.full(len(new.state.done), size, np.int32)
                        self._rows = self._programs.insert(self._rows, new, nowhere)
                for other in {1, *_neighbours(self._sizes, size)}:
                    self._programs.take(self._rows, np.zeros(other, np.int32))
                self._rows = append_text(self._prefill, self._rows, 0, [0])
                for other in self._capacities:
                    self._programs.with_capacity(self._rows, other)
        parked = self._programs.take(self._rows, np.zeros(1, np.int32))
        append_text(self._prefill, parked, 0, [0])
        self.clear()

    def _run_blank(self, frames: int, plan: SamplingPlan) -> float:
        begin = time.monotonic()
        *results, self._rows = self._dispatch(self._rows, frames, plan)
        jax.block_until_ready(results)
        return time.monotonic() - begin

    def clear(self) -> None:
        """Free every row and start with the smallest batch."""
        size = self._sizes[0]
        self._rows = self._programs.take(self._blank, np.zeros(size, np.int32))
        self.tenants = [None] * size
        self._positions = [self._blank_positions] * size
        self._too_large_for = 0

    @property
    def _capacity(self) -> int:
        return _capacity(self._rows)

    def _pack(self) -> None:
        """Use the next smaller batch once it has been large enough for a while."""
        smaller = max((size for size in self._sizes if size < self.size), default=None)
        if smaller is None or len(self.running) > smaller:
            self._too_large_for = 0
            return
        self._too_large_for += 1
        if self._too_large_for > PATIENCE:
            used = [row for row, tenant in enumerate(self.tenants) if tenant is not None]
            free = [row for row, tenant in enumerate(self.tenants) if tenant is None]
            self._reorder([*used, *free][:smaller])

    def _reorder(self, index: list[int]) -> None:
        """Make row i the one that was at index[i]; repeated rows are free copies."""
        self._rows = self._programs.take(self._rows, np.asarray(index, np.int32))
        self._positions = [self._positions[row] for row in index]
        seen: set[int] = set()
        tenants = []
        for row in index:
            tenants.append(None if row in seen else self.tenants[row])
            seen.add(row)
        self.tenants, self._too_large_for = tenants, 0

    def _make_room(self, frames: int) -> None:
        """Choose the capacity for `frames` more frames; free rows that are full start afresh."""
        used = [
            position
            for position, tenant in zip(self._positions, self.tenants, strict=True)
            if tenant is not None
        ]
        needed = at_least(self._capacities, max(used, default=0) + frames)
        self._set_capacity(needed)
        for row, tenant in enumerate(self.tenants):
            if tenant is None and self._positions[row] + frames > self._capacity:
                self._rows = self._programs.insert(
                    self._rows, self._blank, np.asarray([row], np.int32)
                )
                self._positions[row] = self._blank_positions

    def _set_capacity(self, capacity: int) -> None:
        if capacity != self._capacity:
            self._rows = self._programs.with_capacity(self._rows, capacity)


def append_text(prefill: Prefill, rows: Rows, row: int, ids: Sequence[int]) -> Rows:
    """`rows` with text ids added after those that row number `row` has."""
    append = row_programs(prefill.tts.config, prefill.mesh).append
    for start in range(0, len(ids), APPEND):
        part = ids[start : start + APPEND]
        padded = np.full((1, APPEND), -1, np.int32)
        padded[0, : len(part)] = part
        params, padded = gather_text_rows(prefill.text_params, padded)
        conditions = append(params, rows.conditions, np.int32(row), padded, np.int32(len(part)))
        rows = rows._replace(conditions=conditions)
    return rows


def _capacity(rows: Rows) -> int:
    return int(rows.state.talker.layers[0].keys.shape[1])


def _text_room(rows: Rows) -> int:
    return int(rows.conditions.text.shape[1])


def _neighbours(sizes: Sequence[int], size: int) -> Iterator[int]:
    for a, b in itertools.pairwise(sizes):
        if size in (a, b):
            yield a + b - size
