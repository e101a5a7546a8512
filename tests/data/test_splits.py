"""Splits follow the words of a text, and none of them is empty in a small manifest."""

from collections import Counter

import numpy as np
import pytest

from qtts_jax.data.splits import same_text, split_of, splits_of

TEXTS = [f"sentence number {i}" for i in range(4000)]


def test_texts_are_held_out_by_their_words():
    assert same_text("Hello, World!") == same_text("hello world")
    found = [split_of(text, 0.1) for text in TEXTS]
    for split, share in (("test", 0.1), ("validation", 0.1), ("train", 0.8)):
        assert np.mean([each == split for each in found]) == pytest.approx(share, abs=0.02)
    assert found == [split_of(text.upper() + ".", 0.1) for text in TEXTS]
    assert {split_of(text, 1.0) for text in TEXTS} == {"test"}
    assert {split_of(text, 0.0) for text in TEXTS} == {"train"}


@pytest.mark.parametrize("count", [3, 4, 10, 32, 100])
def test_a_small_manifest_without_splits_has_all_three(count):
    texts = TEXTS[:count]
    found = splits_of(texts, [None] * count)
    counts = Counter(found)
    assert set(counts) == {"train", "validation", "test"}
    assert counts["train"] >= max(1, 0.8 * count - 2)
    # The order and the spelling of the manifest are nothing to the splits.
    again = splits_of([text.title() + "?" for text in reversed(texts)], [None] * count)
    assert again == found[::-1]


def test_one_text_is_there_to_train_with():
    assert splits_of(["one"], [None]) in (["train"], ["test"], ["validation"])
    assert splits_of(["sentence number 1"] * 3, [None] * 3) == ["train"] * 3


def test_given_splits_are_kept_and_nothing_is_forced_beside_them():
    given = ["train", "validation", *[None] * 8]
    texts = ["A b.", "c d", "a  B!", "C D?", *TEXTS[:6]]
    found = splits_of(texts, given)
    assert found[:4] == ["train", "validation", "train", "validation"]
    assert found[4:] == [split_of(text, 0.02) for text in TEXTS[:6]]
    assert splits_of(TEXTS[:20], [None] * 20, held_out=0.0) == ["train"] * 20
