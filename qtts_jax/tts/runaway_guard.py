"""The runaway guard: the most frames that a text can need, however slowly it is read.

A model that misses its end of speech goes on to `max_new_tokens`, which may be minutes. The budget
is three times the time that a very slow reader needs, so that it never cuts speech that follows its
text.
"""

from __future__ import annotations

import math
import unicodedata

SECONDS_AT_LEAST = 6.0  # pauses, breaths, an instruction to speak slowly
FACTOR = 3.0
# Seconds that a very slow reader needs for one character; normal speech takes about half of that.
LETTER = 0.125  # an alphabetic script
SYLLABLE = 0.4  # Chinese, Japanese and Korean: one character is a syllable or more
SPELLED = 0.6  # digits, capitals and symbols, which may be read as words: "$", "%", "NASA", "1999"


def frame_budget(text: str, frames_per_second: float) -> int:
    """The frames after which speech of a text is taken for a runaway.

    Args:
        text: the words of one request, without instruction and reference.
    """
    seconds = SECONDS_AT_LEAST + FACTOR * sum(map(_seconds, text))
    return math.ceil(seconds * frames_per_second)


def _seconds(char: str) -> float:
    category = unicodedata.category(char)
    if unicodedata.east_asian_width(char) in "WF" and category[0] == "L":
        return SYLLABLE
    return LETTER if category in ("Ll", "Lo", "Lm", "Mn", "Mc", "Zs", "Po", "Pd") else SPELLED
