"""The front end as a whole: everyday sentences, hostile text, text in pieces, time."""

import json
import random
import re
import time
import unicodedata
from pathlib import Path

import pytest

from qtts_jax.text.spoken import Normalizer, has_words, normalize
from qtts_jax.text.spoken.segments import LONGEST

EVERYDAY = Path(__file__).parents[3] / "experiments" / "nano" / "everyday.jsonl"
ROWS = [json.loads(line) for line in EVERYDAY.read_text(encoding="utf-8").splitlines()]
ODD = (
    "\u200b\u200d\ufeff\u00ad\u0301\u0308\ufe0f\r\n\t\x00\u2028’‘“”—–…•½²°€£$%&@#*_~^`|\\/<>(){}[]"
)


def words(text):
    bare = re.sub(r"(?<=\w)'(?=\w)", "", text.lower())
    return re.findall(r"[^\W_]+", bare)


def hostile(rng, length):
    """Random text of everyday fragments, odd characters, digits and any Unicode."""
    pieces = []
    while sum(map(len, pieces)) < length:
        kind = rng.random()
        if kind < 0.35:
            row = rng.choice(ROWS)["text"]
            start = rng.randrange(len(row))
            pieces.append(row[start : start + rng.randrange(1, 40)])
        elif kind < 0.6:
            pieces.append(rng.choice(ODD) * rng.choice((1, 1, 1, 3)))
        elif kind < 0.75:
            pieces.append(
                "".join(rng.choice("0123456789.,:/-–+ '") for _ in range(rng.randrange(9)))
            )
        elif kind < 0.9:
            pieces.append("".join(rng.choice("ABCIVXaeiou.&' !?") for _ in range(rng.randrange(9))))
        else:
            code = rng.randrange(0x11000)
            pieces.append(chr(code) if not 0xD800 <= code < 0xE000 else "\ud800")
    return "".join(pieces)[:length]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["kind"])
def test_everyday_sentences(row):
    spoken = normalize(row["text"])
    assert words(spoken) == words(row["spoken"])
    assert re.fullmatch(r"[A-Za-z',.:;!? -]+", spoken)


def test_everyday_set_has_the_kinds_it_promises():
    kinds = [row["kind"] for row in ROWS]
    assert len(ROWS) >= 120 and kinds.count("prose") >= 20 and kinds.count("names") >= 15
    assert not any(character.isdigit() for row in ROWS for character in row["spoken"])


@pytest.mark.parametrize("seed", range(150))
def test_hostile_text(seed):
    text = hostile(random.Random(seed), 10 + 2 * seed)
    spoken = normalize(text)
    assert normalize(spoken) == spoken
    assert not re.search(r"[0-9\"“”‘’()\[\]{}—–…*_/\\@#&\r\n\t]|  ", spoken)
    assert bool(spoken) or not any(c.isalpha() and c.isascii() for c in text)
    if has_words(text):
        assert has_words(spoken)


@pytest.mark.parametrize("language", ["english", "auto", "german", "chinese"])
@pytest.mark.parametrize("seed", range(40))
def test_pieces_give_what_the_whole_gives(seed, language):
    rng = random.Random(seed)
    text = hostile(rng, 1500)
    normalizer, spoken, at = Normalizer(language), "", 0
    while at < len(text):
        size = rng.choice((1, 1, 2, 5, 40, 700))
        spoken += normalizer.push(text[at : at + size])
        at += size
    assert spoken + normalizer.finish() == normalize(text, language)


def test_pieces_are_held_back_to_the_end_of_a_clause():
    normalizer = Normalizer()
    assert normalizer.push("Dr. Lee paid $12.50, ") == ""
    assert normalizer.push("He left. T") == " ".join(
        ["Doctor Lee paid twelve dollars and fifty cents, He left."]
    )
    assert normalizer.push("hen " + "word " * 100) != ""
    assert len(normalizer._held) <= LONGEST


@pytest.mark.parametrize(
    "unit",
    ["a", "1", "A", ".", "-", " ", "\n", "(", '"', "1,", "1.", "1-", "1/", "A.", "a.", "a@", "a_",
     "/a", "A ", "A, ", "1 ", "$1", "Dr. ", "I", "*", "'", "https://a", "a.b", "5'", "+1 ", "1:",
     "9am-", "\u0301", "😀", "é", "- a\n", "1. ", "#a", "I I", "x1", "May 5 ", "% "],
)  # fmt: skip
def test_time_is_bounded(unit):
    text = (unit * 20_000)[:20_000]
    start = time.process_time()
    normalize(text)
    assert time.process_time() - start < 4.0


@pytest.mark.parametrize(
    "text",
    ["", " ", "\u200b", "\u200c\u200d", "\ufeff", "\u00ad", "\u0301", "...", "—", "!?", "😀😀",
     "👍🏽", "\x00", "\r\n", "***", "( )"],
)  # fmt: skip
def test_nothing_to_say(text):
    assert not has_words(text)
    assert not normalize(text) or not has_words(normalize(text))


@pytest.mark.parametrize("text", ["a", "5", "½", "é", "你", "ก", "e\u0301", "\u200bx"])
def test_something_to_say(text):
    assert has_words(text)
    assert normalize(text, "auto")


@pytest.mark.parametrize(
    ("text", "as_if"),
    [
        ("Hel\u200blo the\u200dre.", "Hello there."),
        ("First line.\r\nSecond line.", "First line.\nSecond line."),
        ("\n\nYellow there.", "Yellow there."),
        ("\ufeffDon’t worry, it’s fine.", "Don't worry, it's fine."),
        ("Wait…", "Wait."),
        ("D\u200br. Lee", "Dr. Lee"),
    ],
)
def test_as_without(text, as_if):
    assert normalize(text) == normalize(as_if)


def test_other_languages_keep_their_words():
    assert normalize("Um 17:30 für 12,50 €,\r\nDr. Weiß – „ja“", "German") == (
        'Um 17:30 für 12,50 €,\nDr. Weiß – "ja"'
    )
    assert normalize("\u200b他说：“你好……”（3月5日）", "chinese") == "他说：“你好……”（3月5日）"
    assert normalize("他说：“3月5日”", "auto") == "他说：“3月5日”"
    assert normalize("At 5pm", "auto") == "At five P M"


def test_letters_of_other_scripts_survive_in_english():
    spoken = normalize("The word мир and the sign 你好.")
    assert "мир" in spoken and "你好" in spoken


def test_output_is_composed_like_its_input():
    composed = "Zoë’s café"
    assert normalize(unicodedata.normalize("NFD", composed)) == normalize(composed) == "Zoe's cafe"
