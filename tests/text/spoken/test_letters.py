"""Names of spelled letters."""

import pytest

from qtts_jax.text.spoken import Normalizer, normalize
from qtts_jax.text.spoken.letters import NAMES, letter_names


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("NASA and the FBI", "Nasa and the eff bee eye"),
        ("two CDs", "two see dee's"),
        ("in the U.S. in May", "in the you ess in May"),
        ("I know A. B. Smith", "I know ay bee Smith"),
        ("a B2B deal", "a bee two bee deal"),
        ("vitamin C", "vitamin see"),
        ("I am a fan", "I am a fan"),
        ("grade A", "grade A"),
        ("www.example.org", "double you double you double you dot example dot org"),
        ("I'm O'Hara", "I'm O'Hara"),
        ("I phone", "I phone"),
    ],
)
def test_spelled_letters_have_names(text, spoken):
    assert normalize(text, named_letters=True) == spoken


def test_every_letter_has_a_name_of_its_own():
    assert "".join(NAMES) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert len(set(NAMES.values())) == 26
    assert letter_names(letter_names("The F B I")) == "The eff bee eye"


def test_other_languages_keep_their_letters():
    assert normalize("Das BKA", "german", named_letters=True) == "Das BKA"


def test_letters_in_pieces_are_those_of_the_whole():
    text = "The FBI, the U.S. and NASA: an MP3 file. OK, plan B or C?"
    normalizer = Normalizer("english", named_letters=True)
    pieces = "".join(map(normalizer.push, text)) + normalizer.finish()
    assert pieces == normalize(text, named_letters=True)
