"""Long text in chunks: words kept, lengths bounded, cut at the ends of sentences."""

import random

import pytest

from qtts_jax.text.spoken import SentenceSplitter, normalize, split_sentences

PARAGRAPH = (
    "The road was long, and nobody spoke. At noon we stopped to eat; the sun was hot: too hot, in "
    "fact. Did you see the lake? I did not. It lay behind the hills, hidden by trees, and only the "
    "birds knew the way."
)


def test_short_sentences_are_joined():
    assert split_sentences("Yes. No. Maybe so. Then go.", 12) == [
        "Yes. No.",
        "Maybe so.",
        "Then go.",
    ]
    assert split_sentences(PARAGRAPH, 1000) == [PARAGRAPH]


def test_a_long_sentence_is_cut_at_clauses_then_words_then_letters():
    assert split_sentences("We came early, but the door was shut.", 25) == [
        "We came early,",
        "but the door was shut.",
    ]
    assert split_sentences("one two three four", 9) == ["one two", "three", "four"]
    assert split_sentences("abcdefgh", 3) == ["abc", "def", "gh"]


def test_abbreviations_and_initials_are_not_ends():
    text = "Ask Dr. Lee or J. Smith about No. 7. Then rest."
    assert split_sentences(text, 38) == ["Ask Dr. Lee or J. Smith about No. 7.", "Then rest."]
    assert split_sentences("He is in the U S. She is not.", 20) == [
        "He is in the U S.",
        "She is not.",
    ]


def test_text_without_blanks_between_sentences():
    assert split_sentences("今天很好。明天呢？再见！", 8) == ["今天很好。", "明天呢？再见！"]


@pytest.mark.parametrize("seed", range(60))
def test_words_are_kept_and_pieces_give_the_same(seed):
    rng = random.Random(seed)
    text = "".join(rng.choice("ab .,;:!?-\n'Dr") for _ in range(rng.randrange(400)))
    text = normalize(text) if seed % 2 else text
    longest = rng.randrange(1, 80)
    chunks = split_sentences(text, longest)
    assert "".join("".join(chunks).split()) == "".join(text.split())
    assert all(0 < len(chunk) <= longest and chunk == chunk.strip() for chunk in chunks)
    if longest > 20 and all(len(word) <= longest for word in text.split()):
        assert " ".join(chunks).split() == text.split()

    splitter, found, at = SentenceSplitter(longest), [], 0
    while at < len(text):
        size = rng.choice((1, 3, 50))
        found += splitter.push(text[at : at + size])
        at += size
    assert found + splitter.finish() == chunks


def test_long_text_takes_linear_time():
    text = "word " * 40_000
    assert sum(map(len, split_sentences(text, 300))) > 190_000


def test_limit_must_be_positive():
    with pytest.raises(ValueError, match="at least one character"):
        split_sentences("text", 0)
