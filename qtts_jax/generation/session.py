"""A batch that is being generated: device state, cache capacity and arriving text."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import GenerationError
from qtts_jax.functional import Params
from qtts_jax.generation.batch import bucket, host_batch
from qtts_jax.generation.device_params import gather_text_rows
from qtts_jax.generation.packed_rows import pack_batch
from qtts_jax.generation.programs import programs
from qtts_jax.generation.request import Request
from qtts_jax.generation.sampling import NOT_FINITE
from qtts_jax.placement import fetch
from qtts_jax.sharding import mesh_of

# Frames of one device program when whole utterances are generated (5.1 s of speech at 12.5 Hz),
# and the longest chunk of a stream.
FRAMES_PER_CALL = 64
MIN_CAPACITY = 256


class Session:
    """A batch of requests with its state on the device.

    Attributes:
        config, params: of the model.
        mesh: devices that the parameters are on; None for a single one.
        rows: requests of the batch (the device works on as many as `host_batch` makes).
        state, conditions, methods: arguments of the programs that generate frames.
        capacity: positions of the key/value caches.
        frames_asked: frames dispatched to the device so far.
        exhausted: the most frames that any request may have were dispatched.
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
        self.config, self.params, self.mesh = config, params, mesh_of(params)
        self._programs = programs(config, self.mesh)
        inputs, self.methods = host_batch(config, requests, open_text, self._programs.row_multiple)
        self.rows, self._context = len(requests), config.talker.transformer.max_positions
        self.limits: list[int] = inputs.max_frames[: self.rows].tolist()
        self.frames_asked, self._max_frames = 0, max(self.limits)
        self.exhausted = self._max_frames == 0
        self._lag = config.talker.lag
        # Positions beside those of the frames.
        self._longest_prompt = int(np.max(inputs.prompt.lengths)) + self._lag
        self._text_length = int(inputs.trailing_length[0])
        needed = self._longest_prompt + min(self._max_frames, FRAMES_PER_CALL)
        self.capacity = bucket(max(inputs.prompt.text.shape[1], needed), MIN_CAPACITY)
        text_params, packed, layout = pack_batch(params, inputs)
        # Without a mesh the program itself copies, which takes the host less time.
        if self._programs.row_sharding is not None:
            packed = jax.device_put(packed, self._programs.row_sharding)
        self.state, self.conditions = self._programs.start(
            text_params, packed, layout=layout, capacity=self.capacity
        )

    @property
    def text_left(self) -> int:
        """Trailing text ids (of the first request) that no frame has used yet."""
        return self._text_length - self._lag - self.frames_asked

    def finished(self) -> bool:
        """True when every request has ended; waits for the device."""
        return bool(np.all(fetch(self.state.done)))

    def append_text(self, ids: Sequence[int]) -> None:
        """Add trailing text ids to the one request of an open-text session."""
        if not len(ids):
            return
        padded = np.full((1, bucket(len(ids), 16)), -1, np.int32)
        padded[0, : len(ids)] = ids
        text = self.conditions.text  # [B, S, D]
        if self._text_length + padded.shape[1] > text.shape[1]:
            more = max(text.shape[1], padded.shape[1])
            text = jnp.pad(text, ((0, 0), (0, more), (0, 0)))
            text = jax.device_put(text, self._programs.row_sharding)
            self.conditions = self.conditions._replace(text=text)
        params, padded = gather_text_rows(self.params, padded)
        self.conditions = self._programs.append(params, self.conditions, padded, np.int32(len(ids)))
        self._text_length += len(ids)

    def bound_frames(self, frames: int) -> None:
        """Lower the most frames of the one request of an open-text session."""
        self.limits = [min(frames, self.limits[0])]
        self._max_frames = self.limits[0]
        self.exhausted = self.frames_asked >= self._max_frames
        rows = np.minimum(fetch(self.conditions.max_frames), np.int32(frames))
        placed = jax.device_put(rows, self._programs.row_sharding)
        self.conditions = self.conditions._replace(max_frames=placed)

    def grow_cache(self, frames: int) -> None:
        """Count `frames` more frames and grow the caches if they are too small for them."""
        self.frames_asked += frames
        self.exhausted = self.frames_asked >= self._max_frames
        # No frame lies beyond the context. A row that has made its last frame may go on there until
        # the other rows are done; that overwrites only the last position of its full cache.
        needed = min(self._longest_prompt + self.frames_asked, self._context)
        if needed > self.capacity:
            # Every size is compiled once. For one row memory is cheap, so there are few sizes.
            grown = bucket(needed, self.capacity, 4 if self.rows == 1 else 2)
            self.capacity = min(grown, self._context)
            self._grow_caches()

    def _grow_caches(self) -> None:
        """Pad the caches to `capacity` positions, one array at a time.

        Growing all at once would hold the old and the new caches together, which would be the
        memory peak of a long utterance.
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
            self.params,
            self.conditions,
            self.state,
            methods=self.methods,
            frames=FRAMES_PER_CALL,
        )
        return codes


def generate_codes(session: Session) -> list[np.ndarray]:
    """Run every request to its end: a list of int32 [T, Q], T = 0 when it ends at once.

    Raises:
        GenerationError: logits of a request are NaN or infinite.
    """
    chunks: list[np.ndarray] = []
    while not session.exhausted:
        made, done = fetch((session.advance(), session.state.done))
        chunks.append(made)
        if done.all():
            break
    codes = np.concatenate(chunks, axis=1)  # [B, frames, Q]
    check_finite(codes[: session.rows])
    return [row[row[:, 0] >= 0] for row in codes[: session.rows]]


def check_finite(codes: np.ndarray) -> None:
    """Check that no row was ended by logits that are not finite.

    Args:
        codes: [B, frames, Q] of `Session.advance`, one row for each request.

    Raises:
        GenerationError: a row was.
    """
    rows = np.flatnonzero((codes[..., 0] == NOT_FINITE).any(axis=1))
    if not len(rows):
        return
    which = ""
    if len(codes) > 1:
        numbers = ", ".join(str(row + 1) for row in rows)
        which = f" for request{'s' * (len(rows) > 1)} {numbers} of {len(codes)}"
    raise GenerationError(
        f"the model's logits are NaN or infinite{which}, so no code can be drawn: its weights may "
        "be broken (a fine-tune that diverged, a damaged file) or too large for a half-precision "
        'dtype; try dtype="float32", and if that does not help, another checkpoint.'
    )
