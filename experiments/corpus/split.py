"""Splits of this corpus: by sentence, with voices and languages that are for testing alone."""

from __future__ import annotations

import hashlib
import re

from experiments.corpus.synthesis.cpu_worker import UNSEEN_VOICES
from qtts_jax.data.splits import TEST, TRAIN, VALIDATION

# Hundredths of all sentences.
VALIDATION_SHARE, TEST_SHARE = 2, 6
UNSEEN_LANGUAGES = frozenset({"italian"})


def digest(text: str) -> int:
    """A number in [0, 2**64) from the words of `text`; case and punctuation do not matter."""
    words = " ".join(re.findall(r"[^\W_]+", text.casefold().replace("'", "")))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big")


def corpus_split(text: str, voice: str = "", language: str = "english") -> str:
    """The split of a clip of this corpus; all of an unseen voice or language is "test"."""
    if voice in UNSEEN_VOICES or language in UNSEEN_LANGUAGES:
        return TEST
    place = digest(text) % 100
    if place < TEST_SHARE:
        return TEST
    return VALIDATION if place < TEST_SHARE + VALIDATION_SHARE else TRAIN
