"""Many frames per device program, for a batch of requests.

The host only decides how many frames to run next; end of speech, sampling and the text track are
handled on the device. Shapes come from a few buckets, so that texts of other lengths reuse the
compiled programs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import RequestError
from qtts_jax.functional import Params, abstract, bind, matmul_precision
from qtts_jax.generation.device_params import gather_text_rows
from qtts_jax.generation.frame_step import SamplingPlan, frame_step, prefill
from qtts_jax.generation.prompt import Prompt
from qtts_jax.generation.sampling import batch_sampler
from qtts_jax.generation.state import DecodeInputs, GenerationState, HostBatch, stack_prompts
from qtts_jax.models.tts_model import TTSModel

# Frames of one device program when nobody waits for a chunk (5.1 s of speech at 12.5 Hz).
FRAMES_PER_CALL = 64
MIN_PROMPT, MIN_CAPACITY, MIN_TEXT, OPEN_TEXT = 32, 256, 64, 1024
MAX_SEED = 2**32 - 1


def bucket(n: int, smallest: int, factor: int = 2) -> int:
    """The smallest multiple of `smallest` by a power of `factor` that holds n."""
    while smallest < n:
        smallest *= factor
    return smallest


def begin(
    model: TTSModel, inputs: HostBatch, capacity: int
) -> tuple[GenerationState, DecodeInputs]:
    """Prefill the prompts and embed the text that trails them.

    Args:
        capacity: positions of the caches.
    """
    conditions = DecodeInputs(
        text=model.talker.embed_text(inputs.trailing),
        text_length=inputs.trailing_length,
        pad=model.talker.embed_text(inputs.pad),
        max_frames=inputs.max_frames,
        keys=jax.vmap(jax.random.key)(inputs.seeds),
        talker=inputs.talker,
        predictor=inputs.predictor,
        repetition_penalty=inputs.repetition_penalty,
    )
    return prefill(model, inputs.prompt, capacity), conditions


def run_frames(
    model: TTSModel,
    methods: SamplingPlan,
    conditions: DecodeInputs,
    state: GenerationState,
    frames: int,
) -> tuple[jax.Array, GenerationState]:
    """Exactly `frames` (static) steps: codes [B, frames, Q], -1 where a row has no frame.

    The trip count is known, so the host never waits for the device in between.
    """

    def body(state: GenerationState, _: None) -> tuple[GenerationState, jax.Array]:
        codes, state = frame_step(model, methods, conditions, state)
        return state, codes

    state, codes = jax.lax.scan(body, state, None, length=frames)
    return jnp.swapaxes(codes, 0, 1), state


# Number of frames so far, codes, state.
Carry = tuple[jax.Array, jax.Array, GenerationState]


def run_until_done(
    model: TTSModel, methods: SamplingPlan, conditions: DecodeInputs, state: GenerationState
) -> tuple[jax.Array, GenerationState]:
    """Steps until every row is done, at most FRAMES_PER_CALL: codes [B, FRAMES_PER_CALL, Q]."""
    rows, books = state.done.shape[0], model.config.talker.codebooks
    codes = jnp.full((rows, FRAMES_PER_CALL, books), -1, jnp.int32)

    def unfinished(carry: Carry) -> jax.Array:
        i, _, state = carry
        return (i < FRAMES_PER_CALL) & ~jnp.all(state.done)

    def body(carry: Carry) -> Carry:
        i, codes, state = carry
        frame, state = frame_step(model, methods, conditions, state)
        return i + 1, jax.lax.dynamic_update_slice(codes, frame[:, None], (0, i, 0)), state

    _, codes, state = jax.lax.while_loop(unfinished, body, (jnp.int32(0), codes, state))
    return codes, state


def with_text(params: Params, inputs: HostBatch) -> tuple[Params, HostBatch]:
    """What `Programs.start` is given: see `text_rows.gather_text_rows`."""
    prompt = inputs.prompt
    params, text, trailing, pad = gather_text_rows(params, prompt.text, inputs.trailing, inputs.pad)
    prompt = prompt._replace(text=text)
    return params, inputs._replace(prompt=prompt, trailing=trailing, pad=pad)


class Programs:
    """The jitted functions of one configuration; parameters are arguments, never captured."""

    def __init__(self, config: TTSConfig) -> None:
        graphdef, _ = abstract(TTSModel, config)

        def start(
            params: Params, inputs: HostBatch, *, capacity: int
        ) -> tuple[GenerationState, DecodeInputs]:
            with matmul_precision(params):
                return begin(bind(graphdef, params), inputs, capacity)

        def run(
            params: Params,
            conditions: DecodeInputs,
            state: GenerationState,
            *,
            methods: SamplingPlan,
        ) -> tuple[jax.Array, GenerationState]:
            with matmul_precision(params):
                return run_until_done(bind(graphdef, params), methods, conditions, state)

        def append(
            params: Params, conditions: DecodeInputs, ids: jax.Array, count: jax.Array
        ) -> DecodeInputs:
            """Write embedded ids [1, n] (of which `count` are real) after the text there is."""
            with matmul_precision(params):
                new = bind(graphdef, params).talker.embed_text(ids)
            text, length = conditions.text, conditions.text_length
            text = jax.lax.dynamic_update_slice(text, new, (0, length[0], 0))
            return conditions._replace(text=text, text_length=length + count)

        def grow(cache: jax.Array, *, capacity: int) -> jax.Array:
            """Keys or values [B, S, K, h] with room for `capacity` positions."""
            return jnp.pad(cache, ((0, 0), (0, capacity - cache.shape[1]), (0, 0), (0, 0)))

        self.start = jax.jit(start, static_argnames="capacity")
        self.run = jax.jit(run, static_argnames="methods", donate_argnames="state")
        self.append = jax.jit(append)
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


class BatchPlan(NamedTuple):
    """What the host decides of a batch before the device is asked for anything.

    Attributes:
        inputs, methods: for the programs (rows are the next power of two).
        capacity: positions of the caches to begin with.
        prompt: positions of the longest prompt.
        max_frames: the most frames that any request may have.
    """

    inputs: HostBatch
    methods: SamplingPlan
    capacity: int
    prompt: int
    max_frames: int


def plan(config: TTSConfig, requests: Sequence[Request], open_text: bool = False) -> BatchPlan:
    """Lay a batch out in buckets; see `Session`."""
    if not requests:
        raise RequestError("the list of requests is empty; give at least one request.")
    longest = max(len(r.prompt) for r in requests)
    context = config.talker.transformer.max_positions
    if longest >= context:
        raise RequestError(
            f"the prompt takes {longest} positions but the model's context is {context}; "
            "shorten the text, the instruction or the reference audio."
        )
    rows = bucket(len(requests), 1)
    surplus = rows - len(requests)
    # Surplus rows repeat the settings of the last request and have no frames to make.
    sampling = [r.sampling for r in requests] + [requests[-1].sampling] * surplus
    frames = [min(r.sampling.max_frames, context - len(r.prompt)) for r in requests]
    talker, talker_method = batch_sampler(sampling)
    predictor, predictor_method = batch_sampler(sampling, "subtalker_")

    prompts = [r.prompt for r in requests]
    text = np.zeros((rows,), np.int32)
    text[: len(prompts)] = [len(p.trailing) for p in prompts]
    slots = bucket(int(text.max()), OPEN_TEXT if open_text else MIN_TEXT)
    trailing = np.full((rows, slots), -1, np.int32)
    for row, p in zip(trailing, prompts, strict=False):
        row[: len(p.trailing)] = p.trailing
    positions = bucket(longest, MIN_PROMPT)
    inputs = HostBatch(
        prompt=stack_prompts(prompts, rows, positions, config.talker.transformer.width),
        trailing=trailing,
        trailing_length=text,
        pad=np.full((rows,), config.tts_pad_id, np.int32),
        max_frames=np.asarray(frames + [0] * surplus, np.int32),
        seeds=np.asarray([r.seed for r in requests] + [0] * surplus, np.uint32),
        talker=talker,
        predictor=predictor,
        repetition_penalty=np.asarray([s.repetition_penalty for s in sampling], np.float32),
    )
    room = max(positions, longest + min(max(frames), FRAMES_PER_CALL))
    methods = SamplingPlan(talker_method, predictor_method)
    return BatchPlan(inputs, methods, bucket(room, MIN_CAPACITY), longest, max(frames))


class Session:
    """A running batch: the state on the device and what the host knows about it.

    Attributes:
        rows: requests of the batch (the device works on the next power of two).
        state, conditions, methods: what a program of frames needs.
        capacity: positions of the caches.
        frames_asked: frames that programs have been asked for so far.
        limits: the most frames of each request, by its settings and by the model's context.
    """

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
            RequestError: there is no request, or a prompt is longer than the model's context.
        """
        known = plan(config, requests, open_text)
        self._params, self._programs = params, programs(config)
        self.rows, self._context = len(requests), config.talker.transformer.max_positions
        self.methods, self.capacity = known.methods, known.capacity
        self.frames_asked, self._max_frames, self._prompt = 0, known.max_frames, known.prompt
        self.limits: list[int] = known.inputs.max_frames[: self.rows].tolist()
        self._text_length = int(known.inputs.trailing_length[0])
        self.state, self.conditions = self._programs.start(
            *with_text(params, known.inputs), capacity=self.capacity
        )

    @property
    def text_left(self) -> int:
        """Trailing text ids (of the first request) that no frame has used yet."""
        return self._text_length - self.frames_asked

    @property
    def exhausted(self) -> bool:
        """True when every request has been asked for its greatest number of frames."""
        return self.frames_asked >= self._max_frames

    def finished(self) -> bool:
        """True when every request has ended; waits for the device."""
        return bool(np.all(self.state.done))

    def append_text(self, ids: Sequence[int]) -> None:
        """Add trailing text ids to the one request of an open-text session."""
        if not len(ids):
            return
        padded = np.full((1, bucket(len(ids), 16)), -1, np.int32)
        padded[0, : len(ids)] = ids
        text = self.conditions.text
        if self._text_length + padded.shape[1] > text.shape[1]:
            more = max(text.shape[1], padded.shape[1])
            text = jnp.pad(text, ((0, 0), (0, more), (0, 0)))
            self.conditions = self.conditions._replace(text=text)
        params, padded = gather_text_rows(self._params, padded)
        self.conditions = self._programs.append(params, self.conditions, padded, np.int32(len(ids)))
        self._text_length += len(ids)

    def grow_cache(self, frames: int) -> None:
        """Prepare for a program of `frames` more frames: caches that are too small are grown."""
        self.frames_asked += frames
        # No frame lies beyond the context: what a row does there, it does after its last one, and
        # a full cache has just its last slot overwritten.
        needed = min(self._prompt + self.frames_asked, self._context)
        if needed > self.capacity:
            # Every size is compiled once. For one row memory is cheap, so there are few sizes.
            grown = bucket(needed, self.capacity, 4 if len(self.state.done) == 1 else 2)
            self.capacity = min(grown, self._context)
            self._grow_caches()

    def _grow_caches(self) -> None:
        """Give the caches `capacity` positions, one array at a time.

        All at once, the old and the new caches would be the peak of a long utterance's memory.
        """
        talker = self.state.talker
        caches, tree = jax.tree.flatten(talker.layers)
        self.state = self.state._replace(talker=talker._replace(layers=()))
        del talker
        for i, cache in enumerate(caches):
            caches[i] = self._programs.grow(cache, capacity=self.capacity)
        layers = jax.tree.unflatten(tree, caches)
        self.state = self.state._replace(talker=self.state.talker._replace(layers=layers))

    def advance(self) -> jax.Array:
        """Run up to FRAMES_PER_CALL frames: codes [B, FRAMES_PER_CALL, Q] on the device."""
        self.grow_cache(FRAMES_PER_CALL)
        codes: jax.Array
        codes, self.state = self._programs.run(
            self._params, self.conditions, self.state, methods=self.methods
        )
        return codes


def generate_codes(session: Session) -> list[np.ndarray]:
    """Run every request to its end: a list of int32 [T, Q], T = 0 when it ends at once."""
    chunks: list[np.ndarray] = []
    while not session.exhausted:
        chunks.append(np.asarray(session.advance()))
        if session.finished():
            break
    codes = np.concatenate(chunks, axis=1)
    return [row[row[:, 0] >= 0] for row in codes[: session.rows]]
