"""One utterance to generate: its prompt, sampling settings, seed and decoding conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.generation.prompt import Prompt

MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Request:
    """A prepared request; `QwenTTS.prepare` makes one.

    Attributes:
        seed: 0 ... 2^32 - 1; it and the request determine the codes, whatever the batch.
        reference: [T, Q] codes of an in-context reference, decoded before the generated frames and
            cut off the audio; None without one.
        decoder_voice: the `ReferenceVoice` of a 25 Hz decoder; None for a 12 Hz one. Only the
            speech tokenizer reads it.
        budget: the most frames that the text can need (runaway guard); None for no such bound.
    """

    prompt: Prompt
    sampling: SamplingParams
    seed: int
    reference: np.ndarray | None = None
    decoder_voice: Any = None
    budget: int | None = None

    @property
    def max_frames(self) -> int:
        """Frames when no end of speech comes and nothing else ends the speech."""
        return self.sampling.max_new_tokens - 1

    def limit(self, context: int) -> tuple[int, str]:
        """The most frames in a context of that many positions, and what sets this bound.

        The bound is "max_new_tokens", "context" or "guard".
        """
        bounds = [
            (self.max_frames, "max_new_tokens"),
            (context - len(self.prompt.text), "context"),
        ]
        if self.budget is not None:
            bounds.append((self.budget, "guard"))
        return min(bounds, key=lambda bound: bound[0])
