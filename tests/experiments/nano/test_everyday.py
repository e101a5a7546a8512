import json

import pytest

from experiments.nano.everyday import TESTS, markdown, read_tests, spoken_words, word_errors
from qtts_jax.errors import EvaluationError


def test_a_transcript_is_compared_in_its_spoken_form():
    assert spoken_words("The F B I paid twelve dollars and fifty cents.") == spoken_words(
        "the FBI paid $12.50"
    )


def test_times_that_the_judge_writes_otherwise_are_no_errors():
    spoken = "the last train leaves at twenty-three oh five not nine thirty"
    assert word_errors(spoken, "The last train leaves at 2305, not 9.30.") == (0, 12)
    assert word_errors(spoken, "The last train leaves at 2315, not 9.30.")[0] == 2
    assert word_errors("two point five one hundred", "2.5 1,100")[0] > 0


def test_the_committed_tests_have_all_fields():
    tests = read_tests(TESTS)
    assert len(tests) >= 100 and {"prose", "names", "paragraphs"} <= {t["kind"] for t in tests}


def test_a_line_without_a_field_is_one_sentence(tmp_path):
    path = tmp_path / "tests.jsonl"
    path.write_text(json.dumps({"kind": "prose", "text": "Hello."}) + "\n")
    with pytest.raises(EvaluationError, match="kind, text and spoken"):
        read_tests(path)


def test_the_table_names_the_goals():
    wer = {"value": 4.0, "low": 2.0, "high": 6.5, "clips": 10}
    by = {"wer": wer, "no_eos": {"value": 0.0, "low": 0, "high": 0, "clips": 10}}
    table = markdown({"model": "nano", "input": "written", "normalize": True}, {"names": by})
    assert "| names | 10 | 4.0 | 2.0 to 6.5 | at most 20 |" in table
