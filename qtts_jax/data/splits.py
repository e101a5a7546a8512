"""Splits by text: the same words are in the same split, whoever speaks them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SPLITS = TRAIN, VALIDATION, TEST = "train", "validation", "test"
# Share of the texts without a split that become the test split, and again the validation split.
HELD_OUT = 0.02


def same_text(text: str) -> str:
    """The letters and digits of a text, lower case: what makes two texts the same."""
    return "".join(c for c in text.casefold() if c.isalnum())


def split_of(text: str, held_out: float) -> str:
    """The split of a text by its hash: a share `held_out` is "test", as much "validation".

    Texts that differ only in case, spaces or punctuation are the same text.
    """
    place = _place(text)
    if place < held_out:
        return TEST
    return VALIDATION if place < 2 * held_out else TRAIN


def splits_of(
    texts: Sequence[str], given: Sequence[str | None], held_out: float = HELD_OUT
) -> list[str]:
    """The split of every text: the given one of any equal text, else that of its hash.

    Where no split is given at all, test and validation have at least one text each, as long as
    one is left to train with: a few texts by hash alone would often leave them empty.

    Args:
        given: the split of each text, None where there is none.
        held_out: share from 0 to 1, see `split_of`; 0 holds nothing out.
    """
    keys = [same_text(text) for text in texts]
    known = {key: split for key, split in zip(keys, given, strict=True) if split is not None}
    found = {key: known.get(key) or split_of(key, held_out) for key in keys}
    if not known and held_out > 0:
        for split in (TEST, VALIDATION):
            training = [key for key, other in found.items() if other == TRAIN]
            if split not in found.values() and len(training) > 1:
                found[min(training, key=_place)] = split
    return [found[key] for key in keys]


def _place(text: str) -> float:
    """A number in [0, 1) from the words of a text."""
    digest = hashlib.sha256(same_text(text).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
