import functools
import random

import pytest

from qtts_jax.evaluation.panel import transcript_scores
from qtts_jax.evaluation.words import edits, most_repeats, spell, words_of


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("Hello, WORLD!", "english", "hello world"),
        ("It’s Dr. Who's; isn't it?", "english", "its doctor whos isnt it"),
        ("Press 1, then 23%.", "english", "press one then twenty three percent"),
        ("1,204 of 5", "english", "one thousand two hundred four of five"),
        ("Perché no? È così.", "italian", "perché no è così"),
        ("Ｆｕｌｌ width", "english", "full width"),
        ("你好，世界", "chinese", "你 好 世 界"),
    ],
)
def test_texts_become_comparable(text, language, words):
    assert words_of(text, language) == words.split()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (19, "nineteen"),
        (40, "forty"),
        (101, "one hundred one"),
        (70_013, "seventy thousand thirteen"),
        (2_000_000_001, "two billion one"),
        (10**12, " ".join(["one"] + ["zero"] * 12)),
    ],
)
def test_numbers_are_spelled(number, words):
    assert spell(number) == words


def by_definition(a, b):
    @functools.cache
    def distance(i, j):
        if not i or not j:
            return i + j
        return min(
            distance(i - 1, j) + 1,
            distance(i, j - 1) + 1,
            distance(i - 1, j - 1) + (a[i - 1] != b[j - 1]),
        )

    return distance(len(a), len(b))


def test_edits_follow_the_definition():
    draw = random.Random(5)
    for _ in range(60):
        a, b = (draw.choices("abc", k=draw.randrange(9)) for _ in range(2))
        assert edits(a, b) == by_definition(tuple(a), tuple(b)) == edits(b, a)
    assert edits("kitten", "sitting") == 3


def test_most_repeats_counts_phrases_in_succession():
    assert most_repeats([]) == 0
    assert most_repeats(["a", "b", "c", "a", "b"]) == 1
    assert most_repeats(["no", "no", "no", "way"]) == 3
    assert most_repeats(["so", "we", "go", "we", "go", "we", "go", "we"]) == 3


def test_scores_of_a_transcript():
    scores = transcript_scores("Go to the park.", "go to to to the dark", "english")
    assert scores["wer"] == (3, 4)
    assert scores["cer"] == (5, 11)
    assert scores["repetition"] == (1.0, 1)
    # What the text itself repeats is no fault.
    assert transcript_scores("No, no, no!", "no no no", "english")["repetition"] == (0.0, 1)
