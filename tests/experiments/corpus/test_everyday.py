from itertools import islice

import pytest

from experiments.corpus.everyday import LONGEST, SHARES, Slots, everyday, spoken_sentences
from experiments.corpus.everyday_templates import KINDS
from experiments.corpus.proper_names import Names
from experiments.corpus.split import digest
from experiments.corpus.synthesis.phonemes import letters_as_words

NAMES = Names(
    first={"en_US": ["Ada", "Grace"], "fr_FR": ["Amelie"]},
    last={"en_US": ["Stone", "Rivers"], "fr_FR": ["Laurent"]},
    places=["Linz", "Nairobi", "The Hague"],
    known=["Anton Chekhov"],
    words=["Rutgers", "Granada"],
)
PLAIN = ["He walked along the river.", "They sang until the morning came.", "A small wooden box."]


@pytest.mark.parametrize("kind", KINDS)
def test_every_template_is_filled(kind):
    slots = Slots(NAMES, PLAIN, seed=0)
    for template in KINDS[kind]:
        text = slots.fill(template)
        assert "{" not in text and "}" not in text and text.strip()


def test_texts_are_the_same_in_every_run_and_of_every_kind():
    first, again = (list(islice(everyday(NAMES, PLAIN, seed=3), 300)) for _ in range(2))
    assert first == again
    assert {kind for kind, _ in first} == set(SHARES)
    assert first != list(islice(everyday(NAMES, PLAIN, seed=4), 300))


def test_paragraphs_end_and_are_bounded():
    slots = Slots(NAMES, PLAIN, seed=0)
    texts = [slots.paragraph(LONGEST) for _ in range(300)]
    assert max(map(len, texts)) < LONGEST + 20 and min(map(len, texts)) > 20


def test_spoken_forms_have_letters_only_and_held_out_texts_are_left_out():
    sentences = list(islice(spoken_sentences(NAMES, PLAIN), 200))
    assert all(not set('0123456789"$%@#_/') & set(each.text) for each in sentences)
    assert len({digest(each.text) for each in sentences}) == 200
    held_out = frozenset(digest(each.text) for each in sentences[:50])
    rest = islice(spoken_sentences(NAMES, PLAIN, held_out), 150)
    assert not held_out & {digest(each.text) for each in rest}


def test_letters_of_a_spelled_run_are_not_the_article():
    assert letters_as_words("the U S A, at ten A M") == "the U S eigh, at ten eigh M"
    assert letters_as_words("A B C, I B M") == "eigh B C, eye B M"
    assert letters_as_words("A dog and I.") == "A dog and I."
