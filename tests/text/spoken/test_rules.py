"""Every row of the text front end against its own examples."""

import pytest

from qtts_jax.text.spoken import RULES, normalize

EXAMPLES = [(rule.name, *example) for rule in RULES for example in rule.examples]


@pytest.mark.parametrize(("name", "text", "spoken"), EXAMPLES)
def test_example(name, text, spoken):
    assert normalize(text) == spoken
    assert normalize(spoken) == spoken


def test_every_rule_has_a_name_of_its_own_and_examples():
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert not [rule.name for rule in RULES if not rule.examples]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_examples_need_their_rule(rule):
    """An example of a rule is a text that the rule changes: without it the result is another."""
    from qtts_jax.text.spoken import front_end

    without = tuple(other for other in RULES if other is not rule)
    before = front_end.RULES
    try:
        front_end.RULES = without
        changed = [normalize(text) != spoken for text, spoken in rule.examples]
    finally:
        front_end.RULES = before
    assert any(changed)
