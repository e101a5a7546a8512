"""Streamed speech of the 25 Hz family: frames in one program, blocks of audio in another."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from qtts_jax.generation.request import Request
from qtts_jax.generation.session import Session
from qtts_jax.placement import fetch
from qtts_jax.speech_tokenizer.live_decoder_25hz import DeviceStreamDecoder
from qtts_jax.speech_tokenizer.programs_speech import frames_program
from qtts_jax.speech_tokenizer.stream import SpeechStream


class SpeechStream25Hz(SpeechStream):
    """Audio comes later than its frames, because the decoder looks ahead and fills blocks.

    Args:
        session, requests: the batch.
        decoder: with one row for each row of the session.
        samples_per_frame: of decoded audio.
    """

    def __init__(
        self,
        session: Session,
        requests: Sequence[Request],
        decoder: DeviceStreamDecoder,
        samples_per_frame: int,
    ) -> None:
        self.session = session
        self._run = frames_program(session.config, session.mesh)
        self._decoder, self._samples_per_frame = decoder, samples_per_frame
        # Frames of the reference, and frames known so far (the reference included).
        self._skipped_frames = self._known_frames = 0
        # The decoder's next sample, counted from the first one of the reference.
        self._position, self._ended = -decoder.delay, False
        reference = requests[0].reference
        if reference is not None:
            self._skipped_frames = self._known_frames = len(reference)
            rows = np.repeat(reference[None, :, 0], session.conditions.pad.shape[0], 0)  # [B, n]
            self._cut(fetch(decoder.push(rows)))

    def advance(self, frames: int) -> tuple[jax.Array, jax.Array]:
        """See `SpeechStream`; n depends on how many blocks are complete."""
        session = self.session
        session.grow_cache(frames)
        codes, session.state = self._run(
            session.params,
            session.conditions,
            session.state,
            methods=session.methods,
            frames=frames,
        )
        return codes, self._decoder.push(codes[..., 0])

    def collect(self, codes: np.ndarray, wave: np.ndarray) -> np.ndarray:
        """See `SpeechStream`."""
        made = int(np.sum(codes[0, :, 0] >= 0))
        self._known_frames += made
        self._ended |= made < len(codes[0])
        return self._cut(wave)

    def flush(self, waves: Sequence[jax.Array] = ()) -> np.ndarray:
        """See `SpeechStream`; the last blocks are decoded without look-ahead."""
        self._ended = True
        parts = [np.zeros((0,), np.float32), *map(self._cut, fetch(list(waves)))]
        while self._position < self._known_frames * self._samples_per_frame:
            parts.append(self._cut(fetch(self._decoder.finish())))
        return np.concatenate(parts)

    def _cut(self, wave: np.ndarray) -> np.ndarray:
        """The generated samples of the first request among the decoder's next samples [B, n]."""
        start = self._skipped_frames * self._samples_per_frame - self._position
        stop = wave.shape[1]
        if self._ended:
            stop = min(stop, self._known_frames * self._samples_per_frame - self._position)
        self._position += wave.shape[1]
        return wave[0][max(start, 0) : max(stop, 0)].copy()
