"""Streamed speech of the 12 Hz family: frames and audio in one device program."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from qtts_jax.functional import Params
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import Session
from qtts_jax.speech_tokenizer.batch_shapes import split
from qtts_jax.speech_tokenizer.programs_12hz import BLOCKS, Programs12Hz
from qtts_jax.speech_tokenizer.programs_speech import frames_and_audio_program
from qtts_jax.speech_tokenizer.stream import SpeechStream


class SpeechStream12Hz(SpeechStream):
    """Carries the exact decoder state from chunk to chunk.

    Args:
        session, requests: the batch.
        programs, params: of the decoder.
    """

    def __init__(
        self, session: Session, requests: Sequence[Request], programs: Programs12Hz, params: Params
    ) -> None:
        self.session, self._decoder = session, params
        self._samples_per_frame = programs.config.samples_per_frame
        self._run = frames_and_audio_program(session.config, programs.config, session.mesh)
        batch = session.conditions.pad.shape[0]
        self._audio = programs.decoder_state(params, batch)
        reference = requests[0].reference
        if reference is not None:
            start = 0
            for size in split(len(reference), BLOCKS[0]):
                block = np.repeat(reference[None, start : start + size], batch, 0)  # [B, size, Q]
                _, self._audio = programs.decode(params, block, self._audio)
                start += size

    def advance(self, frames: int) -> tuple[jax.Array, jax.Array]:
        """See `SpeechStream`; n is frames * samples per frame."""
        session = self.session
        session.grow_cache(frames)
        codes, wave, session.state, self._audio = self._run(
            session.params,
            self._decoder,
            session.conditions,
            session.state,
            self._audio,
            methods=session.methods,
            frames=frames,
        )
        return codes, wave

    def collect(self, codes: np.ndarray, wave: np.ndarray) -> np.ndarray:
        """See `SpeechStream`."""
        made = int(np.sum(codes[0, :, 0] >= 0))
        return wave[0, : made * self._samples_per_frame].copy()

    def flush(self, waves: Sequence[jax.Array] = ()) -> np.ndarray:
        """Nothing: the 12 Hz decoder does not look ahead."""
        return np.zeros((0,), np.float32)
