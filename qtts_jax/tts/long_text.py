"""Long text in parts: where it is cut, and the pauses between the parts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from qtts_jax.text.spoken import has_words, split_sentences
from qtts_jax.text.spoken.segments import keeps_full_stop

# For checkpoints that do not store `longest_text`: about 100 seconds of English. The released
# models were trained on sequences of up to 32,768 tokens, 40 minutes of speech, but attention and
# caches grow with the length, and slips grow with it in public reports.
LONGEST = 1500
# A Chinese, Japanese or Korean character takes as long as about three letters.
LETTERS_PER_SYLLABLE = 3
# Arriving text is cut at the first sentence end after this share of the longest part, at the first
# clause end after the second one, and between words beyond it.
SENTENCE_SHARE, CLAUSE_SHARE = 0.6, 0.85
LONGEST_WORD = 40  # characters by which an arriving part may exceed the longest
# Seconds from the end of one part's speech to the begin of the next one's.
AFTER_SENTENCE, AFTER_CLAUSE, AFTER_WORD = 0.35, 0.2, 0.06

_SENTENCE_END = re.compile(r"[.!?]+[\"')\]’”]*\s+\Z|[。！？]+[」』”’]?\s*\Z|\n\s*\n\s*\Z")
_CLAUSE_END = re.compile(r"[,;:–—][\"')\]’”]*\s+\Z|[，、；：—]\s*\Z|\s-\s+\Z|\n\s*\Z")


def split_text(text: str, longest: int) -> list[str]:
    """A text in parts of at most `longest` letters, cut at sentences, then clauses, then words.

    Parts without words (a row of dots) are joined to the part before.
    """
    if len(text) <= _characters(text, longest):
        return [text]
    parts: list[str] = []
    for part in split_sentences(text, _characters(text, longest)):
        if parts and not has_words(part):
            parts[-1] += f" {part}"
        else:
            parts.append(part)
    return parts


def _characters(text: str, longest: int) -> int:
    """Characters that take as long as `longest` letters."""
    wide = sum("\u1100" <= c <= "\u11ff" or "\u2e80" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7af"
               for c in text)  # fmt: skip
    return max(1, longest // LETTERS_PER_SYLLABLE) if 2 * wide > len(text) else longest


def pause_after(part: str) -> float:
    """Seconds between the speech of a part and that of the next part."""
    text = part.rstrip() + " "
    if _SENTENCE_END.search(text) and not _abbreviated(text):
        return AFTER_SENTENCE
    return AFTER_CLAUSE if _CLAUSE_END.search(text) else AFTER_WORD


class ArrivingParts:
    """Cuts a text that arrives in pieces into parts, without holding anything back.

    Iterate over it, and over the pieces of each part before the next one is taken; what is left of
    a part then is passed over. Where the cuts lie depends on the text alone, not on how it arrives.

    Attributes:
        spoken: the text of the current part so far.
    """

    def __init__(self, pieces: Iterator[str], longest: int | None) -> None:
        self._pieces, self._longest = pieces, longest
        self._held = ""
        self._ended = False
        self.spoken = ""

    def __iter__(self) -> Iterator[Iterator[str]]:
        while True:
            self.spoken = ""
            part = self._part()
            yield part
            for _ in part:  # speech that was cut, or ended early, has not used all of its text
                pass
            # What is left may be blank: another part begins with its first letter or digit.
            while not has_words(self._held) and not self._ended:
                self._pull()
            if not has_words(self._held):
                return
            self._held = self._held.lstrip()

    def _pull(self) -> None:
        piece = next(self._pieces, None)
        self._ended = piece is None
        self._held += piece or ""

    def _part(self) -> Iterator[str]:
        while True:
            taken, cut = self._take()
            if taken or not cut:
                yield taken
            if cut or self._ended:
                return
            self._pull()

    def _take(self) -> tuple[str, bool]:
        """Move held text into the part, up to its end: what was moved, and whether it ended."""
        begin = len(self.spoken)
        while self._held:
            if self._longest is None:
                self.spoken, self._held = self.spoken + self._held, ""
                break
            self.spoken, self._held = self.spoken + self._held[0], self._held[1:]
            if self._is_end(_characters(self.spoken, self._longest)):
                return self.spoken[begin:], True
        return self.spoken[begin:], False

    def _is_end(self, longest: int) -> bool:
        text = self.spoken
        if len(text) < SENTENCE_SHARE * longest:
            return False
        if _SENTENCE_END.search(text, len(text) - 8) and not _abbreviated(text):
            return True
        if len(text) >= CLAUSE_SHARE * longest and _CLAUSE_END.search(text, len(text) - 8):
            return True
        return len(text) >= longest and (text[-1].isspace() or len(text) >= longest + LONGEST_WORD)


def _abbreviated(text: str) -> bool:
    """Whether the full stop at the end of a text belongs to an abbreviation or initial."""
    mark = re.compile(r"[.!?]+[\"')\]’”]*\s+\Z").search(text, max(0, len(text) - 8))
    return mark is not None and keeps_full_stop(text, mark)
