"""The ordered rules, applied to a whole text or to a text that arrives in pieces."""

import re
import unicodedata

from qtts_jax.text.spoken import (
    abbreviations,
    addresses,
    capitals,
    dates_times,
    marks,
    money,
    numbers,
    phones,
    symbols,
    units,
)
from qtts_jax.text.spoken.letters import letter_names
from qtts_jax.text.spoken.rule import Rule
from qtts_jax.text.spoken.segments import next_cut

# Longer readings come before the shorter ones that they contain.
RULES: tuple[Rule, ...] = (
    *marks.RULES,
    *addresses.RULES,
    *phones.RULES,
    *dates_times.RULES,
    *money.RULES,
    *units.RULES,
    *abbreviations.RULES,
    *capitals.RULES,
    *numbers.RULES,
    *marks.BRACKETS,
    *symbols.BETWEEN,
    *symbols.TIDY,
)
_PASSES = 6  # at most; two are enough for everyday text
# Languages that keep their typographic marks; "auto" becomes "other" when the script is not Latin.
_OWN_MARKS = ("chinese", "japanese", "korean", "other")


def has_words(text: str) -> bool:
    """Whether a text has a letter or digit of any script, so that there is something to speak."""
    return any(unicodedata.category(c)[0] == "L" or c.isnumeric() for c in text)


def normalize(text: str, language: str = "english", named_letters: bool = False) -> str:
    """The words of a text as they are spoken, in letters and plain marks.

    English, and "auto" where most letters of the first clause are Latin: numbers, dates, money,
    abbreviations, capitals and symbols become words. Other languages: invisible characters are
    removed and, outside Chinese, Japanese and Korean, typographic marks become ASCII.

    Args:
        language: full name in any case, or "auto".
        named_letters: English letters that are spelled are given by name (`letters.py`).
    """
    normalizer = Normalizer(language, named_letters)
    return normalizer.push(text) + normalizer.finish()


class Normalizer:
    """Normalisation of a text that arrives in pieces; together the pieces give `normalize(text)`.

    At most `segments.LONGEST` characters and one piece are held back.
    """

    def __init__(self, language: str = "english", named_letters: bool = False) -> None:
        self._language = language.lower()  # "auto" until the first segment has decided
        self._named_letters = named_letters
        self._held = ""
        self._started = False

    def push(self, piece: str) -> str:
        """What the text so far settles and was not returned before; may be empty."""
        self._held += piece.translate(marks.INVISIBLE)
        spoken = ""
        while (length := next_cut(self._held)) is not None:
            segment, self._held = self._held[:length], self._held[length:]
            spoken += self._segment(segment)
        return spoken

    def finish(self) -> str:
        """The rest, after the last piece."""
        segment, self._held = self._held, ""
        spoken = self._segment(segment)
        english = self._language in ("english", "auto")
        return spoken.rstrip(" ,;:-") if english else spoken

    def _segment(self, segment: str) -> str:
        if self._language == "auto" and has_words(segment):
            self._language = "english" if _mostly_latin(segment) else "other"
        if self._language in ("english", "auto"):
            spoken = _english(segment)
            if self._named_letters:
                spoken = letter_names(spoken)
            blank = " " if self._started and spoken else ""
        else:
            spoken = _layout(segment, self._language)
            spoken, blank = (spoken if self._started else spoken.lstrip()), ""
        self._started = self._started or bool(spoken)
        return blank + spoken


def _english(segment: str) -> str:
    """The spoken form of a segment: all rules in order, until none changes anything.

    The second pass meets words that the first has freed from digits or symbols beside them.
    """
    text = segment.translate(marks.ENGLISH)
    for _ in range(_PASSES):
        before = text
        for rule in RULES:
            text = rule.apply(text)
        text = text.strip()
        if text == before:
            break
    return text


def _layout(segment: str, language: str) -> str:
    """Line breaks of one kind; typographic marks in ASCII where the language writes blanks."""
    text = re.sub(r"\r\n?", "\n", segment)
    return text if language in _OWN_MARKS else text.translate(marks.TYPOGRAPHIC)


def _mostly_latin(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    latin = sum(unicodedata.name(c, "").startswith("LATIN") for c in letters)
    return 2 * latin >= len(letters)
