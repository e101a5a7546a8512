"""Kokoro's phoneme ids with the places of the words among them."""

import pytest

pytest.importorskip("kokoro_onnx")

from experiments.corpus.synthesis.phonemes import KokoroPhonemes


@pytest.fixture(scope="module")
def kokoro():
    return KokoroPhonemes()


def test_words_are_found_between_spaces_and_marks(kokoro):
    text, said = "Early, many of us: go!", "ˈɜːli, mˈɛni əv ˌʌs: ɡˈoʊ!"
    tokens = [kokoro.vocabulary[letter] for letter in said]
    anchors = kokoro.anchors(text, tokens)
    pairs = [
        (text[a:b], said[first:last])
        for (a, first), (b, last) in zip(anchors[::2], anchors[1::2], strict=True)
    ]
    assert pairs == [
        ("Early", "ˈɜːli"),
        ("many", "mˈɛni"),
        ("of", "əv"),
        ("us", "ˌʌs"),
        ("go", "ɡˈoʊ"),
    ]


def test_nothing_to_say_has_no_anchors(kokoro):
    assert kokoro.anchors("", []) == kokoro.anchors("?", [kokoro.vocabulary["?"]]) == []
