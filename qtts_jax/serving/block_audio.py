"""Audio of an utterance of the 25 Hz family, made block by block from its codes on the host.

Rows begin at different times, so their blocks of codes are complete at different times, too: each
utterance has a decoder of its own, whose programs have one row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qtts_jax.generation.request import Request


class BlockAudio:
    """Decodes the frames of one utterance as they come, after those of its reference.

    The samples are those of `QwenTTS.stream`, or of `QwenTTS.synthesize` for an utterance that is
    wanted whole.

    Args:
        codec: a 25 Hz speech tokenizer.
        request: prepared.
        whole: blocks wait for all that they depend on, not for `codec.look_ahead` blocks alone.

    Raises:
        RequestError: the voice is missing.
    """

    def __init__(self, codec: Any, request: Request, whole: bool) -> None:
        self._decoder = codec.host_decoder(
            request.decoder_voice,
            seed=request.seed,
            look_ahead=None if whole else codec.look_ahead,
        )
        # Samples of the reference that are still to come.
        self._left_out = 0
        if request.reference is not None:
            self._left_out = len(request.reference) * codec.samples_per_frame
            self._without_reference(self._decoder.push(request.reference[:, 0]))

    def push(self, codes: np.ndarray) -> np.ndarray:
        """The samples float32 [n] of the blocks that frames int32 [T, 1] complete; n may be 0."""
        return self._without_reference(self._decoder.push(codes[:, 0]))

    def finish(self) -> np.ndarray:
        """The remaining samples float32 [n], after the last frame."""
        return self._without_reference(self._decoder.finish())

    def _without_reference(self, wave: np.ndarray) -> np.ndarray:
        cut = min(self._left_out, len(wave))
        self._left_out -= cut
        return wave[cut:]
