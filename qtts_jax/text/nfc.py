"""Where text that is still growing can be cut without changing its Unicode normal form C.

NFC may reorder and compose a character with what follows it, so the end of a growing text is not
final. The cuts found here satisfy NFC(a + b) = NFC(a) + NFC(b) for every b that begins with the
text after the cut (Unicode Standard Annex #15, section 9, "Detecting Normalization Boundaries").
"""

import unicodedata
from functools import lru_cache

# Hangul composes by arithmetic instead of by table (Unicode Standard, section 3.12).
_JAMO = ("\u1100", "\u11ff")
_JAMO_TAILS = ("\u1161", "\u11c2")


def stable_length(text: str) -> int:
    """Length of the longest prefix of `text` whose NFC no continuation can change."""
    for cut in range(len(text), 0, -1):
        if _never_joins_next(text[cut - 1]):
            return cut
        if cut < len(text) and _never_joins_previous(text[cut]):
            return cut
    return 0


@lru_cache(maxsize=1)
def _composing() -> tuple[frozenset[str], frozenset[str]]:
    """Characters that stand first, and those that stand second, in a canonical decomposition."""
    firsts, seconds = set(), set()
    for code in range(0xC0, 0x20000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            firsts.add(chr(int(parts[0], 16)))
            seconds.add(chr(int(parts[1], 16)))
    return frozenset(firsts), frozenset(seconds)


@lru_cache(maxsize=4096)
def _never_joins_next(char: str) -> bool:
    firsts, _ = _composing()
    return (
        unicodedata.category(char) != "Cn"  # a later Unicode version may assign it
        and unicodedata.combining(char) == 0
        and unicodedata.normalize("NFD", char) == char
        and char not in firsts
        and not _JAMO[0] <= char <= _JAMO[1]
    )


@lru_cache(maxsize=4096)
def _never_joins_previous(char: str) -> bool:
    _, seconds = _composing()
    first = unicodedata.normalize("NFD", char)[0]
    return (
        unicodedata.category(char) != "Cn"
        and unicodedata.combining(first) == 0
        and first not in seconds
        and not _JAMO_TAILS[0] <= first <= _JAMO_TAILS[1]
    )
