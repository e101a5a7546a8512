"""Files of ablations: short, with question, command and answer; faults name the fix."""

import pytest

from experiments.runner import ablation
from qtts_jax.errors import ConfigError


@pytest.mark.parametrize("name", ablation.names())
def test_a_file_has_question_command_answer_and_few_lines(name):
    found = ablation.load(name)
    assert found.question.endswith("?")
    assert f"python -m experiments.run {name}" in found.doc
    assert "Answer: " in found.doc
    assert len((ablation.FOLDER / f"{name}.py").read_text().splitlines()) <= 25


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="no ablation 'ratee'; choose one of codebooks, "):
        ablation.load("ratee")
    (tmp_path / "mine.py").write_text('"""Why?"""\n')
    with pytest.raises(ConfigError, match="mine.py needs a docstring .* and VARIATIONS"):
        ablation.load(str(tmp_path / "mine.py"))


def test_names_of_variations_become_names_of_files():
    assert ablation.slug("12.5 Hz x 16") == "12.5-hz-x-16"
