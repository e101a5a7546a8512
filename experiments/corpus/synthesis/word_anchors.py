"""Which letters of a text each group of phonemes says: anchors for an alignment in time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

Anchor = tuple[int, int]

_WORD = re.compile(r"[A-Za-z']+")
# Words and groups of phonemes that may belong together: espeak says "in which" as one group.
_STEPS = ((1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (1, 3))
# What a merger costs, in phonemes: less likely than a word that is a few phonemes longer.
_MERGER = 2.0
# Groups by which a word may lie before or after its place at an even pace.
_DRIFT = 20


class Group(NamedTuple):
    """Phonemes between two spaces or marks: tokens [start, end), and how many are phonemes."""

    start: int
    end: int
    phonemes: int


def groups_of(tokens: Sequence[int], silent: frozenset[int], breaks: frozenset[int]) -> list[Group]:
    """The groups of a sentence of phoneme ids.

    Args:
        silent: ids between the phonemes that say nothing (padding, beginning, end).
        breaks: ids of spaces and punctuation.
    """
    groups, start, count = [], 0, 0
    for i, token in enumerate([*tokens, next(iter(breaks))]):
        if token in breaks:
            if count:
                groups.append(Group(start, i, count))
            start, count = i + 1, 0
        elif token not in silent:
            start = i if not count else start
            count += 1
    return groups


def anchors_of(text: str, groups: Sequence[Group]) -> list[Anchor]:
    """Places where a letter and a token meet, ascending: (characters of the text, tokens).

    Each word, or few words that are said as one, has one at its beginning and one at its end; the
    words are those whose lengths fit the groups best. Empty where there is nothing to match.
    """
    words = [match.span() for match in _WORD.finditer(text)]
    letters, phonemes = sum(b - a for a, b in words), sum(g.phonemes for g in groups)
    if not letters or not phonemes:
        return []
    # Letters of the words, at the pace of all, and phonemes of the groups before each place.
    pace = phonemes / letters
    written = [pace * n for n in accumulate((b - a for a, b in words), initial=0)]
    spoken = list(accumulate((g.phonemes for g in groups), initial=0))
    best = {(0, 0): (0.0, (0, 0))}
    for i in range(len(words) + 1):
        middle = round(i * len(groups) / len(words))
        for j in range(max(middle - _DRIFT, 0), min(middle + _DRIFT, len(groups)) + 1):
            options = []
            for a, b in _STEPS:
                if (before := best.get((i - a, j - b))) is not None:
                    said = written[i] - written[i - a]
                    found = spoken[j] - spoken[j - b]
                    cost = abs(said - found) + _MERGER * (a + b - 2)
                    options.append((before[0] + cost, (a, b)))
            if options:
                best[i, j] = min(options)
    i, j = len(words), len(groups)
    if (i, j) not in best:
        return []
    anchors: list[Anchor] = []
    while i or j:
        a, b = best[i, j][1]
        anchors.append((words[i - 1][1], groups[j - 1].end))
        i, j = i - a, j - b
        anchors.append((words[i][0], groups[j].start))
    return anchors[::-1]
