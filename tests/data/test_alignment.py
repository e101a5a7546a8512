"""Positions in a text, in characters, become the tokens that are spoken in each frame."""

import numpy as np
import pytest

from experiments.nano.text_vocabulary import save_text
from qtts_jax.data.alignment import token_ends, tokens_of_frames
from qtts_jax.data.talker_examples import even_pace
from qtts_jax.text.bpe import TextTokenizer

# A letter with the first byte of é, the first two bytes of 日, two line breaks.
MERGES = [("a", "Ã"), ("æ", "Ĺ"), ("Ċ", "Ċ")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("text")
    save_text(directory, MERGES)
    return TextTokenizer.from_dir(directory)


@pytest.mark.parametrize(
    ("text", "sizes", "ends"),
    [
        ("one", [1, 1, 1], [1, 2, 3]),
        ("aé日", [2, 1, 2, 1], [1.5, 2, 8 / 3, 3]),
        ("😀!", [1, 1, 1, 1, 1], [0.25, 0.5, 0.75, 1, 2]),
        # Composed by the tokenizer: the accent is a character of the text, the second byte of é.
        ("xe\u0301y", [1, 1, 1, 1], [1, 2, 3, 4]),
        ("\u1112\u1161\u11ab?", [1, 1, 1, 1], [1 / 3, 2 / 3, 3, 4]),
        # Its line break is in the last token before the text.
        ("\nhi", [1, 1], [2, 3]),
        ("a<|im_end|>b", [1, 10, 1], [1, 11, 12]),
    ],
)
def test_tokens_end_where_their_bytes_do(tokenizer, text, sizes, ends):
    ids = tokenizer.assistant_ids(text)[1]
    assert [tokenizer.token_size(i) for i in ids] == sizes
    np.testing.assert_allclose(token_ends(tokenizer, text, ids), ends)


def test_the_reader_is_where_the_alignment_says():
    # Tokens over characters 0 to 2, 2 to 2.5, 2.5 to 3 and 3 to 6; frames of half a second.
    ids, ends = [7, 8, 9, 5], np.asarray([2, 2.5, 3, 6])
    # Stands still for a second and waits at character 4.
    alignment = [[1, 1.0], [3, 2.0], [4, 2.0], [4, 3.0], [6, 4.0]]
    found = tokens_of_frames(ids, ends, alignment, 10, 2)
    assert found.dtype == np.int32
    # Middles 0.25, 0.75 | 1.25: 1.5 | 1.75: 2.5, where the third token begins | 4 | 4.5 to the end.
    assert found.tolist() == [7, 7, 7, 9, 5, 5, 5, 5, 5, 5]
    assert tokens_of_frames(ids, ends, [[2, 1.0], [2.5, 2.0]], 8, 2).tolist() == [8] * 4 + [9] * 4
    # The end of the text is in the last token, the beginning in the first.
    assert tokens_of_frames(ids, ends, [[6, 0], [6, 1]], 2, 2).tolist() == [5, 5]
    assert tokens_of_frames(ids, ends, [[0, 5], [6, 6]], 2, 2).tolist() == [7, 7]


def test_characters_of_many_bytes_are_no_longer_than_others(tokenizer):
    text = "aé日b"
    ids = tokenizer.assistant_ids(text)[1]
    ends = token_ends(tokenizer, text, ids)
    # A character a second, 8 frames in each.
    found = tokens_of_frames(ids, ends, [[0, 0], [4, 4]], 32, 8)
    assert [np.sum(found == i) for i in ids] == [12, 4, 5, 3, 8]


def test_one_byte_a_token_and_one_pace_are_an_even_pace(tokenizer):
    text, frames = "An even pace.", 20
    ids = tokenizer.assistant_ids(text)[1]
    alignment = [[0, 0], [len(text), frames / 12.5]]
    found = tokens_of_frames(ids, token_ends(tokenizer, text, ids), alignment, frames, 12.5)
    np.testing.assert_array_equal(found, even_pace(ids, frames))
