"""Errors of a transcript: texts made comparable, then the least number of edits.

Word error rate = (substitutions + deletions + insertions) / words of the reference, over all clips
together; character error rate likewise over letters and digits without spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Languages that are written without spaces; there a word is a character.
UNSPACED = ("chinese", "japanese")
_NUMBER = re.compile(r"\d[\d,]*\d|\d")
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_ABBREVIATIONS = {"mr": "mister", "mrs": "missus", "dr": "doctor", "ok": "okay", "%": "percent"}


def words_of(text: str, language: str) -> list[str]:
    """The words of a text without case, punctuation, accents in compound form, or digits (English).

    Args:
        language: full lower-case name.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    if language == "english":
        text = _NUMBER.sub(lambda m: f" {spell(int(m[0].replace(',', '')))} ", text)
        text = text.replace("%", " percent ")
    text = re.sub(r"(?<=\w)['’](?=\w)", "", text)
    words = "".join(c if c.isalnum() or _is_mark(c) else " " for c in text).split()
    if language == "english":
        words = [_ABBREVIATIONS.get(word, word) for word in words]
    return list("".join(words)) if language in UNSPACED else words


def spell(number: int) -> str:
    """A number from 0 to 10^12 - 1 in English words; larger ones digit by digit."""
    if number >= 10**12:
        return " ".join(_ONES[int(digit)] for digit in str(number))
    for scale, name in _SCALES:
        if number >= scale:
            rest = f" {spell(number % scale)}" if number % scale else ""
            return f"{spell(number // scale)} {name}{rest}"
    if number < 20:
        return _ONES[number]
    return _TENS[number // 10 - 2] + (f" {_ONES[number % 10]}" if number % 10 else "")


def edits(said: Sequence[str], transcript: Sequence[str]) -> int:
    """Least substitutions, deletions and insertions from one sequence to the other.

    Levenshtein 1966, one row of the table at a time.
    """
    row = list(range(len(transcript) + 1))
    for i, wanted in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, got in enumerate(transcript, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (wanted != got))
    return row[-1]


def most_repeats(words: Sequence[str], longest: int = 6) -> int:
    """How often the most repeated phrase of up to `longest` words is said in direct succession."""
    most = min(1, len(words))
    for n in range(1, longest + 1):
        run = 0
        for i in range(n, len(words)):
            run = run + 1 if words[i] == words[i - n] else 0
            most = max(most, run // n + 1)
    return most


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
