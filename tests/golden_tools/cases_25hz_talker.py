"""Calls of one-codebook talkers on the checkpoints of `tests/support/checkpoint_25hz.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.golden_tools import detweights

SEED = 77


@dataclass(frozen=True)
class Case:
    """One greedy call.

    Attributes:
        kind: "custom_voice" or "base".
        overrides: fields of the talker's configuration.
        reference: frames of the in-context reference; 0 for a clone by x-vector alone.
    """

    name: str
    kind: str
    texts: tuple[str, ...]
    stream_text: bool
    max_new_tokens: int = 24
    speaker: str | None = None
    language: str = "english"
    reference: int = 0
    reference_text: str = ""
    overrides: tuple[tuple[str, int], ...] = ()

    def embedding(self, width: int) -> np.ndarray:
        """The talker's x-vector of a clone, float32 [D]."""
        return detweights.symmetric(SEED, f"{self.name}/xvector", (width,), 1.0)

    def codes(self) -> np.ndarray:
        """The reference of a clone, int [T, 1]."""
        return detweights.integers(SEED, f"{self.name}/codes", (self.reference, 1), 64)


PAIR = ("Hello there, this is a test.", "Short.")
CASES = (
    Case("whole_text", "custom_voice", PAIR, stream_text=False, speaker="ryan"),
    Case("stream_text", "custom_voice", PAIR, stream_text=True, speaker="eric", language="auto"),
    # End of speech is a code that these weights like, so that rows end at different frames.
    Case(
        "ends",
        "custom_voice",
        (*PAIR, "A third one."),
        stream_text=True,
        speaker="ryan",
        overrides=(("codec_eos_token_id", 62),),
    ),
    Case("x_vector", "base", PAIR, stream_text=True, max_new_tokens=16),
    Case(
        "in_context",
        "base",
        PAIR,
        stream_text=True,
        max_new_tokens=16,
        reference=12,
        reference_text="What was said.",
    ),
    Case(
        "in_context_long",
        "base",
        ("Short.",),
        stream_text=True,
        max_new_tokens=12,
        reference=40,
        reference_text="So.",
    ),
    Case(
        "in_context_whole_text",
        "base",
        ("Short.",),
        stream_text=False,
        max_new_tokens=12,
        reference=9,
        reference_text="What was said.",
    ),
)
