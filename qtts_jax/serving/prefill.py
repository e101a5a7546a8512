"""Prefills requests into rows that can be inserted into a running batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from qtts_jax.errors import RequestError
from qtts_jax.generation.batch import MIN_TEXT, bucket, host_batch
from qtts_jax.generation.device_params import with_table_on_device
from qtts_jax.generation.packed_rows import pack_batch
from qtts_jax.generation.programs import programs
from qtts_jax.generation.request import Request
from qtts_jax.generation.sampling import SamplingPlan
from qtts_jax.models.tokenizer_12hz import DecoderState
from qtts_jax.placement import row_count
from qtts_jax.serving.row_programs import Rows, row_programs
from qtts_jax.serving.settings import EngineSettings, at_least
from qtts_jax.sharding import mesh_of
from qtts_jax.speech_tokenizer.batch_shapes import split
from qtts_jax.speech_tokenizer.programs_12hz import BLOCKS
from qtts_jax.tts.qwen_tts import QwenTTS

# From this many rows on, the text table takes less device memory than the rows' caches, and is kept
# there as well.
ROWS_WITH_TABLE = 8
# Text ids of one `append`; the text of a row has this much room beyond the limit.
APPEND = 16
# Decoder states that were run through an in-context reference and are kept.
KEPT_REFERENCES = 64
# The audio state of a row without audio.
NO_AUDIO = ()


class Prefill:
    """Makes rows of one shape from requests of any kind.

    Args:
        tts: a checkpoint.
        settings: of the engine.

    Attributes:
        mesh: devices that the checkpoint is on; None for a single one.
        text_params: parameters for programs that embed text.
        audio_in_rows: the programs of the rows make audio, too.
        makes_blocks: they make codes alone, which `BlockAudio` decodes (25 Hz).
        most: requests of one prefill.
        max_frames: of one utterance.
        capacities: positions of the caches, ascending.

    Raises:
        RequestError: the checkpoint is on devices of several processes.
    """

    def __init__(self, tts: QwenTTS, settings: EngineSettings) -> None:
        codec: Any = tts.speech_tokenizer
        self.mesh = mesh_of(tts.params)
        _check_one_process(self.mesh)
        self.audio_in_rows = not settings.offline and not codec.needs_voice
        self.makes_blocks = not settings.offline and codec.needs_voice
        self.most = min(settings.prefill_sizes[-1], settings.rows[-1])
        self.tts, self.settings, self._codec = tts, settings, codec
        generation = programs(tts.config, self.mesh)
        self._start, self._row_multiple = generation.start, generation.row_multiple
        # All arrays of a row are placed as the parameters are: others would need other programs.
        self._placing = generation.row_sharding or jax.tree.leaves(tts.params)[0].sharding
        self._rows = row_programs(tts.config, self.mesh)
        self._context = tts.config.talker.context
        many = settings.rows[-1] >= ROWS_WITH_TABLE
        self.text_params = with_table_on_device(tts.params) if many else tts.params
        seconds_per_frame = codec.samples_per_frame / codec.sample_rate
        self.max_frames = max(1, int(settings.max_seconds / seconds_per_frame))
        talker = tts.config.talker
        self.capacities = settings.capacities(
            self.max_frames + talker.lag, talker.transformer.max_positions
        )
        self._fresh_audio: Any = NO_AUDIO
        if self.audio_in_rows:
            self._decoder = codec.part("decoder")
            self._fresh_audio = self._one_row(self._new_state())
        # A batch of it for the next prefill of each size: programs of the rows take it over.
        self._fresh_rows: dict[int, Any] = {}
        self._after_reference: OrderedDict[bytes, DecoderState] = OrderedDict()

    def checked(self, request: Request) -> tuple[Request, SamplingPlan]:
        """The request with its number of frames cut to the limit, and the sampler it needs.

        Raises:
            RequestError: its prompt or its text is beyond the engine's limits, or its draft
                window is above 1, which the compiled plans do not have.
        """
        limits, prompt = self.settings, request.prompt
        _, needed = host_batch(self.tts.config, [request])
        if needed.draft_window > 1:
            raise RequestError(
                f"draft_window is {needed.draft_window}, but rows that are batched continuously "
                "are generated without drafts; leave it at 1 here."
            )
        if len(prompt) > limits.max_prompt:
            raise RequestError(
                f"the prompt takes {len(prompt)} positions but this server allows "
                f"{limits.max_prompt}; shorten the text, the instruction or the reference audio."
            )
        if len(prompt.trailing) > limits.max_text:
            raise RequestError(
                f"the text takes {len(prompt.trailing)} ids but this server allows "
                f"{limits.max_text}; split it into several requests."
            )
        allowed = min(self.max_frames, request.limit(self._context)[0])
        if request.max_frames > allowed:
            # `max_new_tokens` counts the end of speech, too.
            sampling = replace(request.sampling, max_new_tokens=allowed + 1)
            request = replace(request, sampling=sampling)
        return request, needed

    def positions(self, request: Request) -> int:
        """Padded length of a request's prompt."""
        return bucket(len(request.prompt), self.settings.prompt_sizes[0])

    def __call__(self, requests: Sequence[Request]) -> Rows:
        """The states of checked requests before their first frames, in their order.

        They run as one batch, at most the last of `prefill_sizes`; it may have further rows.
        """
        rows = self.rows_for(len(requests))
        inputs, _ = host_batch(self.tts.config, requests, multiple=rows)
        trailing = np.full((rows, self._text_room(requests)), -1, np.int32)  # [B, S]
        for row, request in zip(trailing, requests, strict=False):
            row[: len(request.prompt.trailing)] = request.prompt.trailing
        capacity = at_least(self.capacities, inputs.prompt.text.shape[1])
        params, packed, layout = pack_batch(self.text_params, inputs._replace(trailing=trailing))
        packed = jax.device_put(packed, self._placing)
        state, conditions = self._start(params, packed, layout=layout, capacity=capacity)
        audio = self._audio([request.reference for request in requests], rows)
        return Rows(conditions, state, audio)

    def rows_for(self, requests: int) -> int:
        """Rows of the program that prefills so many requests."""
        return self.whole_rows(at_least(self.settings.prefill_sizes, requests))

    def whole_rows(self, rows: int) -> int:
        """The fewest rows from `rows` on that the devices can share (`Programs.row_multiple`)."""
        return -(-rows // self._row_multiple) * self._row_multiple

    def _text_room(self, requests: Sequence[Request]) -> int:
        """Text ids that the rows have room for: offline in few sizes, else always the most."""
        if not self.settings.offline:
            return self.settings.max_text + APPEND
        return bucket(max(len(request.prompt.trailing) for request in requests), MIN_TEXT)

    def _audio(self, references: Sequence[np.ndarray | None], rows: int) -> Any:
        """The decoder's states [rows, ...] after references; those of further rows are fresh."""
        if not self.audio_in_rows:
            return NO_AUDIO
        if all(reference is None for reference in references):
            made = self._fresh_rows.pop(rows, None)
            return self._new_rows(rows) if made is None else made
        each = [self._audio_after(reference) for reference in references]
        return self._rows.join([*each, *[self._fresh_audio] * (rows - len(each))])

    def get_ready(self, requests: int) -> None:
        """Make what the next prefill of some requests takes over, while the device has work."""
        rows = self.rows_for(requests)
        if self.audio_in_rows and rows not in self._fresh_rows:
            self._fresh_rows[rows] = self._new_rows(rows)

    def _new_rows(self, rows: int) -> Any:
        return self._rows.repeat(self._fresh_audio, rows)

    def _audio_after(self, reference: np.ndarray | None) -> Any:
        """The decoder's state [1, ...] after a reference, which is decoded once and kept."""
        if reference is None:
            return self._fresh_audio
        key = reference.tobytes()
        if key not in self._after_reference:
            run, start = self._codec.programs.decode, 0
            state = self._new_state()
            for size in split(len(reference), BLOCKS[0]):
                block = reference[None, start : start + size]
                _, state = run(self._decoder, np.repeat(block, row_count(self.mesh), 0), state)
                start += size
            self._after_reference[key] = self._one_row(state)
            if len(self._after_reference) > KEPT_REFERENCES:
                self._after_reference.popitem(last=False)
        self._after_reference.move_to_end(key)
        return self._after_reference[key]

    def _new_state(self) -> DecoderState:
        """The decoder's state before the first frame, one row for each device of the data axis."""
        state = self._codec.programs.decoder_state(self._decoder, row_count(self.mesh))
        if self.mesh is None:
            state = jax.device_put(state, self._placing)
        placed: DecoderState = state
        return placed

    def _one_row(self, state: DecoderState) -> DecoderState:
        """The first row of a state, alone."""
        one: DecoderState = state if self.mesh is None else self._rows.first(state)
        return one

    def every_audio_program(self) -> None:
        """Run the programs that in-context references of any length are decoded with."""
        for rows in self.settings.prefill_sizes:
            self._rows.join([self._fresh_audio] * self.whole_rows(rows))
        size = BLOCKS[0]
        while size:
            self._audio_after(np.zeros((size, self._codec.codebooks), np.int32))
            size //= 2
        self._after_reference.clear()


def _check_one_process(mesh: Mesh | None) -> None:
    """Check that one process has all devices: with several, each would need all requests.

    Raises:
        RequestError: a mesh that spans processes.
    """
    count = 0 if mesh is None else len({device.process_index for device in mesh.devices.flat})
    if count > 1:
        raise RequestError(
            f"the serving engine runs in one process, but the mesh has devices of {count}; start "
            "one in each process, on a mesh of its own devices."
        )
