"""Names of letters: "F B I" as "eff bee eye", for voices that do not read single letters well."""

from __future__ import annotations

import re

NAMES = {
    "A": "ay", "B": "bee", "C": "see", "D": "dee", "E": "ee", "F": "eff", "G": "gee", "H": "aitch",
    "I": "eye", "J": "jay", "K": "kay", "L": "ell", "M": "em", "N": "en", "O": "oh", "P": "pee",
    "Q": "cue", "R": "are", "S": "ess", "T": "tee", "U": "you", "V": "vee", "W": "double you",
    "X": "ex", "Y": "why", "Z": "zee",
}  # fmt: skip
# Words, unless other letters stand beside them.
_WORDS = "AIO"
_LETTERS = re.compile(r"(?<![\w'.-])[A-Z](?: [A-Z])*(?='s\b|(?![\w'-]))")


def letter_names(text: str) -> str:
    """Single capital letters of an English text by their names.

    "A", "I" and "O" alone are words and stay.
    """
    return _LETTERS.sub(_named, text)


def _named(match: re.Match[str]) -> str:
    letters = match[0].split()
    if len(letters) == 1 and letters[0] in _WORDS:
        return match[0]
    return " ".join(NAMES[letter] for letter in letters)
