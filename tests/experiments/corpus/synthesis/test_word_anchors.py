"""Anchors: which letters of a text are said by which phonemes, though espeak joins words."""

import itertools

import pytest

from experiments.corpus.synthesis.word_anchors import anchors_of, groups_of

PAD, FIRST, LAST, SPACE, COMMA = 0, 1, 2, 3, 8
SILENT, BREAKS = frozenset({PAD, FIRST, LAST}), frozenset({SPACE, COMMA})


def tokens_of(*groups, mark=SPACE):
    """Ids as Piper has them, a pad after each: groups of so many phonemes, with breaks between."""
    said = [[20] * size + [mark] for size in groups]
    return [
        FIRST,
        *(i for token in [*itertools.chain(*said)][:-1] for i in (PAD, token)),
        PAD,
        LAST,
    ]


def matched(text, *groups):
    """(letters, number of the first group, number of the last) of each piece that is matched."""
    found = groups_of(tokens_of(*groups), SILENT, BREAKS)
    anchors = anchors_of(text, found)
    assert len(anchors) % 2 == 0
    for before, after in itertools.pairwise(anchors):
        assert before[0] < after[0] and before[1] < after[1]
    starts, ends = [g.start for g in found], [g.end for g in found]
    return [
        (text[a:b], starts.index(first), ends.index(end))
        for (a, first), (b, end) in zip(anchors[::2], anchors[1::2], strict=True)
    ]


@pytest.mark.parametrize("mark", [SPACE, COMMA])
def test_groups_are_between_spaces_and_marks(mark):
    tokens = tokens_of(2, 3, mark=mark)
    first, second = groups_of(tokens, SILENT, BREAKS)
    assert (first.phonemes, second.phonemes) == (2, 3)
    assert tokens[first.start] == tokens[second.start] == 20 and tokens[first.end] == mark
    assert tokens[first.start - 1] == tokens[second.start - 1] == PAD
    assert second.end == len(tokens)
    assert groups_of([FIRST, PAD, SPACE, PAD, SPACE, LAST], SILENT, BREAKS) == []


def test_words_are_matched_one_to_one():
    assert matched("The man's, quite old.", 2, 4, 4, 4) == [
        ("The", 0, 0),
        ("man's", 1, 1),
        ("quite", 2, 2),
        ("old", 3, 3),
    ]


def test_two_words_said_as_one_have_one_group():
    assert matched("the house in which everybody was born", 2, 4, 5, 8, 3, 4) == [
        ("the", 0, 0),
        ("house", 1, 1),
        ("in which", 2, 2),
        ("everybody", 3, 3),
        ("was", 4, 4),
        ("born", 5, 5),
    ]


def test_parts_of_a_hyphenated_word_are_said_as_one():
    assert matched("a well-known example", 1, 8, 7) == [
        ("a", 0, 0),
        ("well-known", 1, 1),
        ("example", 2, 2),
    ]


def test_number_goes_with_a_word_beside_it():
    found = matched("the rivers in 12 of the houses", 2, 6, 2, 5, 2, 2, 6)
    assert found[:2] == [("the", 0, 0), ("rivers", 1, 1)] and found[-1] == ("houses", 6, 6)
    assert [n for _, first, last in found for n in range(first, last + 1)] == list(range(7))
    assert len(found) == 6


@pytest.mark.parametrize(
    ("text", "groups"), [("1999", (4, 6)), ("", ()), ("Hello.", ()), ("one", (1, 1, 1, 1))]
)
def test_nothing_to_match_has_no_anchors(text, groups):
    assert matched(text, *groups) == []
