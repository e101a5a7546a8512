"""Held-out data by sentence: the same words are in the same split, whoever speaks them."""

from __future__ import annotations

import hashlib
import re

from experiments.corpus.synthesis.cpu_worker import UNSEEN_VOICES

SPLITS = TRAIN, VALIDATION, TEST = "train", "validation", "test"
# Hundredths of all sentences.
VALIDATION_SHARE, TEST_SHARE = 2, 6
UNSEEN_LANGUAGES = frozenset({"italian"})


def digest(text: str) -> int:
    """A number in [0, 2**64) from the words of `text`; case and punctuation do not matter."""
    words = " ".join(re.findall(r"[^\W_]+", text.casefold().replace("'", "")))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big")


def same_text(text: str) -> str:
    """What makes two texts the same for the reader of manifests: their letters and digits."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def split_of(text: str, voice: str = "", language: str = "english") -> str:
    """`train`, `validation` or `test`; all of an unseen voice or language is `test`."""
    if voice in UNSEEN_VOICES or language in UNSEEN_LANGUAGES:
        return TEST
    place = digest(text) % 100
    if place < TEST_SHARE:
        return TEST
    return VALIDATION if place < TEST_SHARE + VALIDATION_SHARE else TRAIN
