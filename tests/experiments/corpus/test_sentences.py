"""Texts of the corpus: cleaned, shuffled the same way everywhere, held out by their words."""

import pytest

from experiments.corpus.sentences import Sentence, clean, split_sentences, unique
from experiments.corpus.split import corpus_split, digest


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (
            "  the weather   improved\ntoward the evening",
            "The weather improved toward the evening.",
        ),
        ("He said `go home' and went on his way.", "He said go home and went on his way."),
        ("the dogs' tails were wagging in the wind", "The dogs' tails were wagging in the wind."),
        ("It’s a “nice” day — is it not , dear ?", "It's a nice day, is it not, dear?"),
        ("What on earth is it that they want?!", "What on earth is it that they want?"),
    ],
)
def test_text_becomes_one_plain_sentence(raw, wanted):
    assert clean(raw) == wanted


@pytest.mark.parametrize(
    "raw",
    [
        "too short to read",
        "It was built in 1987 and burned down in 1990.",
        "The river flows through N. Dakota and Minnesota, e.g. in spring.",
        "The offices of NASA are closed on Sunday mornings.",
        "C:\\> dir *.* and press the <enter> key at once",
        "word " * 60,
        "",
    ],
)
def test_what_voices_read_in_different_ways_is_left_out(raw):
    assert clean(raw) is None


def test_cleaning_keeps_its_own_result():
    text = clean("'Motel' is a word made by combining 'motor' and 'hotel'")
    assert clean(text) == text == "Motel is a word made by combining motor and hotel."


def test_paragraphs_become_sentences():
    assert split_sentences('One is here.  Two\nis there? "Three!"') == [
        "One is here.",
        "Two is there?",
        '"Three!"',
    ]


def test_sentences_come_in_one_order_without_doubles():
    texts = [f"Sentence number {word} is here." for word in "abcdefgh"]
    sentences = [Sentence(text, "a package", "a licence") for text in texts]
    doubles = [Sentence(texts[0].upper(), "another", "another")]
    shuffled = unique(sentences)
    assert shuffled != sentences
    assert {digest(s.text) for s in shuffled} == {digest(text) for text in texts}
    assert len(unique(doubles + sentences[::-1])) == len(texts)
    assert unique(sentences[::-1]) == shuffled


def test_split_goes_by_the_words_alone():
    texts = [f"this is the sentence {n} of many" for n in range(3000)]
    splits = [corpus_split(text) for text in texts]
    assert splits == [corpus_split(text.title() + "!") for text in texts]
    shares = {name: splits.count(name) / len(texts) for name in set(splits)}
    assert shares == pytest.approx({"train": 0.92, "test": 0.06, "validation": 0.02}, abs=0.015)


def test_unseen_voices_and_languages_are_for_tests_only():
    texts = [f"this is the sentence {n} of many" for n in range(100)]
    assert {corpus_split(text, "bf_lily") for text in texts} == {"test"}
    assert {corpus_split(text, language="italian") for text in texts} == {"test"}
