"""Many frames per device program, for a batch of requests: whole or in chunks.

The host only decides how many frames to run next; end of speech, sampling and the text track are
handled on the device. Shapes come from a few buckets, so that texts of other lengths reuse the
compiled programs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.config import TTSConfig
from qtts_jax.errors import RequestError
from qtts_jax.functional import Params, abstract, bind, matmul_precision
from qtts_jax.generation.frame_step import Methods, frame_step, prefill
from qtts_jax.generation.prompt import Prompt
from qtts_jax.generation.sampling import batch_sampler
from qtts_jax.generation.sampling_params import SamplingParams
from qtts_jax.generation.state import Conditions, GenerationState, PromptBatch, stack_prompts
from qtts_jax.models.tts_model import TTSModel

# Frames of one device program when nobody waits for a chunk (5.1 s of speech at 12.5 Hz).
FRAMES_PER_CALL = 64
MIN_PROMPT, MIN_CAPACITY, MIN_TEXT, OPEN_TEXT = 32, 256, 64, 1024
MAX_SEED = 2**32 - 1


def bucket(n: int, smallest: int) -> int:
    """The smallest power-of-two multiple of `smallest` that holds n."""
    while smallest < n:
        smallest *= 2
    return smallest


class Programs:
    """The jitted functions of one configuration; parameters are arguments, never captured."""

    def __init__(self, config: TTSConfig) -> None:
        graphdef, _ = abstract(TTSModel, config)

        def start(
            params: Params, prompt: PromptBatch, trailing: jax.Array, *, capacity: int
        ) -> tuple[GenerationState, jax.Array, jax.Array]:
            """Prefill; also the embedded trailing text [B, S, D] and tts_pad [B, D]."""
            model = bind(graphdef, params)
            with matmul_precision(params):
                text = model.talker.embed_text(trailing)
                pad = model.talker.embed_text(jnp.full(trailing.shape[:1], config.tts_pad_id))
                return prefill(model, prompt, capacity), text, pad

        def run(
            params: Params,
            conditions: Conditions,
            state: GenerationState,
            wanted: jax.Array,
            *,
            methods: Methods,
        ) -> tuple[jax.Array, GenerationState]:
            """Up to `wanted` frames: codes [B, FRAMES_PER_CALL, Q], -1 where there is none."""
            model = bind(graphdef, params)
            rows = state.done.shape[0]
            codes = jnp.full((rows, FRAMES_PER_CALL, config.talker.codebooks), -1, jnp.int32)

            def unfinished(carry):
                i, _, state = carry
                return (i < wanted) & ~jnp.all(state.done)

            def body(carry):
                i, codes, state = carry
                frame, state = frame_step(model, methods, conditions, state)
                return i + 1, jax.lax.dynamic_update_slice(codes, frame[:, None], (0, i, 0)), state

            with matmul_precision(params):
                _, codes, state = jax.lax.while_loop(unfinished, body, (jnp.int32(0), codes, state))
            return codes, state

        def append(params: Params, text: jax.Array, length: jax.Array, ids: jax.Array) -> jax.Array:
            """Write embedded ids [1, n] (-1: padding) into text [1, S, D] from `length` [1] on."""
            with matmul_precision(params):
                new = bind(graphdef, params).talker.embed_text(ids)
            return jax.lax.dynamic_update_slice(text, new, (0, length[0], 0))

        def grow(state: GenerationState, *, capacity: int) -> GenerationState:
            """The same state with caches of `capacity` positions."""

            def pad(x: jax.Array) -> jax.Array:
                return jnp.pad(x, ((0, 0), (0, capacity - x.shape[1]), (0, 0), (0, 0)))

            layers = jax.tree.map(pad, state.talker.layers)
            return state._replace(talker=state.talker._replace(layers=layers))

        self.start = jax.jit(start, static_argnames="capacity")
        self.run = jax.jit(run, static_argnames="methods", donate_argnames="state")
        self.append = jax.jit(append, donate_argnames="text")
        self.grow = jax.jit(grow, static_argnames="capacity")


@functools.lru_cache(maxsize=16)
def programs(config: TTSConfig) -> Programs:
    """The programs of a configuration, shared by every model that has it."""
    return Programs(config)


@dataclass(frozen=True)
class Request:
    """One laid-out request.

    Attributes:
        seed: 0 ... 2^32 - 1; with the request it determines the codes, whatever the batch.
        reference: [T, Q] codes of an in-context reference, which the audio decoder hears first.
    """

    prompt: Prompt
    sampling: SamplingParams
    seed: int
    reference: np.ndarray | None = None


class Session:
    """A running batch. `advance` asks the device for more frames and does not wait for them."""

    def __init__(
        self,
        config: TTSConfig,
        params: Params,
        requests: Sequence[Request],
        *,
        open_text: bool = False,
    ) -> None:
        """Prefill the prompts.

        Args:
            open_text: more trailing text will come through `append_text` (one request only).

        Raises:
            RequestError: a prompt is longer than the model's context.
        """
        self._config, self._params = config, params
        self._programs = programs(config)
        self.rows = len(requests)
        rows = bucket(self.rows, 1)
        longest = max(len(r.prompt) for r in requests)
        context = config.talker.transformer.max_positions
        if longest >= context:
            raise RequestError(
                f"the prompt takes {longest} positions but the model's context is {context}; "
                "shorten the text, the instruction or the reference audio."
            )
        # Surplus rows of the bucket repeat the settings of the last one with no frames to make.
        sampling = [r.sampling for r in requests]
        sampling += sampling[-1:] * (rows - self.rows)
        frames = [min(r.sampling.max_frames, context - len(r.prompt)) for r in requests]
        frames += [0] * (rows - self.rows)
        seeds = [r.seed for r in requests] + [0] * (rows - self.rows)
        talker, talker_method = batch_sampler(sampling)
        predictor, predictor_method = batch_sampler(sampling, "subtalker_")
        self._methods = Methods(talker_method, predictor_method)
        self._used = longest
        self._max_frames = max(frames)
        self.frames_asked = 0
        positions = bucket(longest, MIN_PROMPT)
        self.capacity = bucket(
            max(positions, longest + min(self._max_frames, FRAMES_PER_CALL)), MIN_CAPACITY
        )
        prompts = [r.prompt for r in requests]
        width = config.talker.transformer.width
        batch = stack_prompts(prompts, rows, positions, width)
        trailing_length = np.zeros((rows,), np.int32)
        for i, p in enumerate(prompts):
            trailing_length[i] = len(p.trailing)
        slots = bucket(int(trailing_length.max()), OPEN_TEXT if open_text else MIN_TEXT)
        trailing = np.full((rows, slots), -1, np.int32)
        for i, p in enumerate(prompts):
            trailing[i, : len(p.trailing)] = p.trailing
        self._state, text, pad = self._programs.start(
            params, batch, trailing, capacity=self.capacity
        )
        self._text_length = trailing_length
        self._conditions = Conditions(
            text=text,
            text_length=jnp.asarray(trailing_length),
            pad=pad,
            max_frames=jnp.asarray(frames, jnp.int32),
            keys=jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32)),
            talker=talker,
            predictor=predictor,
            repetition_penalty=jnp.asarray([s.repetition_penalty for s in sampling], jnp.float32),
        )

    @property
    def text_left(self) -> int:
        """Trailing text ids (of the first request) that no frame has used yet."""
        return int(self._text_length[0]) - self.frames_asked

    @property
    def frames_left(self) -> int:
        """Frames that the longest request may still have."""
        return self._max_frames - self.frames_asked

    def append_text(self, ids: Sequence[int]) -> None:
        """Add trailing text ids to the one request of an open-text session."""
        if not len(ids):
            return
        padded = np.full((1, bucket(len(ids), 16)), -1, np.int32)
        padded[0, : len(ids)] = ids
        text, length = self._conditions.text, self._text_length
        if int(length[0]) + padded.shape[1] > text.shape[1]:
            text = jnp.pad(text, ((0, 0), (0, max(text.shape[1], padded.shape[1])), (0, 0)))
        text = self._programs.append(self._params, text, length, padded)
        self._text_length = length + len(ids)
        self._conditions = self._conditions._replace(
            text=text, text_length=jnp.asarray(self._text_length)
        )

    def advance(self, frames: int) -> jax.Array:
        """Run up to `frames` (at most FRAMES_PER_CALL) more frames.

        Returns:
            codes [rows, FRAMES_PER_CALL, Q] int32 on the device, -1 where a row has no frame.
        """
        self._used += frames
        self.frames_asked += frames
        if self._used > self.capacity:
            self.capacity = bucket(self._used, self.capacity)
            self._state = self._programs.grow(self._state, capacity=self.capacity)
        codes, self._state = self._programs.run(
            self._params, self._conditions, self._state, np.int32(frames), methods=self._methods
        )
        return codes

    @property
    def exhausted(self) -> bool:
        """True when every request has had its greatest number of frames."""
        return self.frames_left <= 0

    def finished(self) -> bool:
        """True when every request has ended; waits for the device."""
        return bool(np.all(self._state.done))


def generate_codes(session: Session) -> list[np.ndarray]:
    """Run every request to its end: a list of int32 [T, Q], T = 0 when it ends at once."""
    chunks: list[np.ndarray] = []
    while not session.exhausted:
        chunks.append(np.asarray(session.advance(FRAMES_PER_CALL)))
        if session.finished():
            break
    codes = np.concatenate(chunks, axis=1)
    return [row[row[:, 0] >= 0] for row in codes[: session.rows]]


def chunk_schedule(first: Sequence[int], steady: int) -> Iterator[int]:
    """Sizes of streamed chunks in frames: `first` once, then `steady` for ever."""
    yield from first
    while True:
        yield steady
