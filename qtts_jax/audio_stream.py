"""Audio of frames as they are generated, without waiting for the device."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.models.tokenizer_12hz.programs import split
from qtts_jax.speech_tokenizer import SpeechTokenizer


@functools.partial(jax.jit, static_argnames="frames")
def _frames(codes: jax.Array, start: jax.Array, *, frames: int) -> jax.Array:
    """`frames` frames of codes [B, N, Q] from `start` on; missing ones (-1) become 0."""
    return jnp.maximum(jax.lax.dynamic_slice_in_dim(codes, start, frames, axis=1), 0)


class AudioStream:
    """Decodes a batch of utterances chunk by chunk, carrying the exact state (no overlap, no seam).

    Args:
        rows: utterances B.
        reference: [T, Q] codes of an in-context reference, heard first and not given out (B = 1).
    """

    def __init__(
        self, tokenizer: SpeechTokenizer, rows: int = 1, reference: np.ndarray | None = None
    ) -> None:
        self._programs = tokenizer.programs
        self._params = tokenizer.params["decoder"]
        self._state = self._programs.decoder_state(self._params, rows)
        if reference is not None:
            self.feed(jnp.asarray(reference[None]), len(reference))

    def feed(self, codes: jax.Array, frames: int) -> list[jax.Array]:
        """Decode the first `frames` frames of codes [B, N, Q].

        Returns:
            Pieces of samples [B, n] on the device, not waited for. Frames of -1 (after the end of
            speech) give samples to throw away.
        """
        waves, start = [], 0
        for size in split(frames):
            piece = _frames(codes, np.int32(start), frames=size)
            wave, self._state = self._programs.decode(self._params, piece, self._state)
            waves.append(wave)
            start += size
        return waves
