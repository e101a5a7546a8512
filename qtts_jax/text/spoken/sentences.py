"""Long text in chunks of bounded length, cut at sentences, then clauses, then words."""

import re
from collections.abc import Iterator

from qtts_jax.text.spoken.segments import keeps_full_stop

_SENTENCE = re.compile(r"[.!?]+[\"')\]’”]*\s+(?=\S)|[。！？]+[」』”’]?\s*|\n\s*\n\s*")
_CLAUSE = re.compile(r"(?:[,;:]|(?<=\s)[-–]|—)[\"')\]’”]*\s+|[，、；：]\s*|—|\n\s*")
_BLANK = re.compile(r"\s+")


def split_sentences(text: str, longest: int) -> list[str]:
    """Chunks of at most `longest` characters, without outer blanks; joined they hold all words.

    Each chunk holds as many whole sentences as fit. Where the first sentence does not fit it ends
    at the last clause mark (, ; : -) that fits, else between words, else inside a word.
    """
    splitter = SentenceSplitter(longest)
    return [*splitter.push(text), *splitter.finish()]


class SentenceSplitter:
    """`split_sentences` of a text that arrives in pieces; holds back about `longest` characters."""

    def __init__(self, longest: int) -> None:
        if longest < 1:
            raise ValueError(f"longest is {longest}, but a chunk needs at least one character")
        self._longest = longest
        self._held = ""

    def push(self, piece: str) -> list[str]:
        """The chunks that the text so far settles and that were not returned before."""
        self._held += piece
        return list(self._chunks(self._longest + 1))

    def finish(self) -> list[str]:
        """The rest, after the last piece."""
        return list(self._chunks(0))

    def _chunks(self, keep: int) -> Iterator[str]:
        start, text = len(self._held) - len(self._held.lstrip()), self._held
        while len(text) - start > keep:
            end = start + _first(text[start : start + self._longest + 2], self._longest)
            if chunk := text[start:end].strip():
                yield chunk
            while end < len(text) and text[end].isspace():
                end += 1
            start = end
        self._held = text[start:]


def _first(text: str, longest: int) -> int:
    """Length of the first chunk of a text whose start is given, `longest` + 2 characters of it."""
    if len(text) <= longest:
        return len(text)
    for marks in (_SENTENCE, _CLAUSE, _BLANK):
        ends = [
            m.end()
            for m in marks.finditer(text)
            if m.start() > 0 and len(text[: m.end()].rstrip()) <= longest
            and not (marks is _SENTENCE and keeps_full_stop(text, m))
        ]  # fmt: skip
        if ends:
            return ends[-1]
    return longest
