"""Where a text may be cut so that no rule looks across the cut.

A segment ends after a letter, a mark of a sentence or clause, and a blank, where an ASCII letter
follows, unless the word before the mark may carry a full stop ("Dr."). A text without such a place
is cut at a blank before `LONGEST` characters. Each cut depends only on what stands before it and on
the one character after it, so a text that arrives in pieces is cut alike.
"""

import re

from qtts_jax.text.spoken.abbreviations import BEFORE_NUMBERS, DOTTED

LONGEST = 400  # characters that a segment can hold
_CUT = re.compile(r"(?<=[^\W\d_])([.,;:!?])[\"')\]]{0,3}\s+(?=[A-Za-z])")
_WORD = re.compile(r"[A-Za-z.]{1,24}\Z")


def next_cut(text: str) -> int | None:
    """Length of the first segment of a text that may go on, or None when more must be known."""
    for match in _CUT.finditer(text, 0, LONGEST + 1):
        if match[1] not in ".,":
            return match.end()
        word = _WORD.search(text, max(0, match.start() - 24), match.start())
        if word is None or not _may_go_on(word[0]):
            return match.end()
    if len(text) <= LONGEST:
        return None
    blank = max(text.rfind(" ", 1, LONGEST), text.rfind("\n", 1, LONGEST))
    return blank + 1 if blank > 0 else LONGEST


def _may_go_on(word: str) -> bool:
    """Whether a word before a full stop or comma leaves open what the mark means."""
    return len(word) == 1 or "." in word or word in DOTTED


def keeps_full_stop(text: str, mark: re.Match[str]) -> bool:
    """Whether the full stop at a match belongs to an abbreviation or initial, not a sentence.

    A single letter after another one is the end of a spelled acronym ("in the U S.").
    """
    if not mark[0].startswith("."):
        return False
    word = _WORD.search(text, max(0, mark.start() - 24), mark.start())
    if word is None:
        return False
    spelled = re.search(r"(?:\A|\s)[A-Z] [A-Z]\Z", text[max(0, mark.start() - 4) : mark.start()])
    numbered = word[0] in BEFORE_NUMBERS and text[mark.end() : mark.end() + 1].isdigit()
    return numbered or (_may_go_on(word[0]) and not spelled)
