"""The table of goals says what the reports say, of the clips that were meant."""

import importlib
from pathlib import Path

import pytest

from qtts_jax.evaluation.report import Report
from qtts_jax.evaluation.rows import Row


@pytest.fixture(scope="module")
def nano_eval():
    return importlib.import_module("experiments.nano.evaluate")


def test_goals_are_compared_in_the_unit_of_the_table(nano_eval):
    rows = [
        Row("recordings", {"a": {"sim": (0.9, 1)}}, {"best_other_speaker_pair": 0.75}),
        Row("clone", {"a": {"sim": (0.72, 1)}}),
        Row("speech", {"a": {"wer": (7, 100)}, "b": {"wer": (1, 100)}}),
    ]
    report = Report("clone", rows)
    lines = {
        (g.score, g.bound): nano_eval.check(g, report)
        for g in nano_eval.GOALS
        if g.task == "clone" or g.row == "speech"
    }
    assert lines["sim", 0.70]["reached"] is True
    assert lines["sim", "best_other_speaker_pair"]["reached"] is False
    assert lines["sim", "best_other_speaker_pair"]["bound"] == 0.75
    assert lines["wer", 6.0]["value"] == pytest.approx(4)
    assert lines["wer", 6.0]["reached"] is True
    # What no judge has measured is neither reached nor missed.
    assert lines["mos", 3.5]["reached"] is None
    table = nano_eval.markdown(list(lines.values()))
    assert "| clone | sim | ≥ 0.75 | 0.72 | 0.72 to 0.72 | 1 | no |" in table
    assert "| tts | mos | ≥ 3.5 | none |  | 0 | not measured |" in table


def test_opus_must_be_beaten_as_published_and_as_measured(nano_eval):
    def reached(**own):
        opus = {"pesq_wb": (2.3, 1), "stoi": (0.90, 1), "sim": (0.80, 1)}
        rows = [
            Row("Opus 6 kbit/s", {"a": opus}),
            Row("tokenizer", {"a": {name: (value, 1) for name, value in own.items()}}),
        ]
        return nano_eval.better_than_opus(Report("codec", rows))["reached"]

    assert reached(mos=3.0) is None  # no judge of what Opus is compared by
    assert not reached(pesq_wb=2.2, stoi=0.905, sim=0.83)
    assert reached(pesq_wb=2.2, stoi=0.905, sim=0.85)


def test_each_row_has_as_many_clips_as_asked_for(nano_eval, monkeypatch):
    plans = {}
    monkeypatch.setattr(nano_eval, "evaluate", lambda plan, *_: plans.update({plan.task: plan}))
    options = ["model", "--manifest", "m.jsonl", "--out", "out", "--clips", "7"]
    args = nano_eval.build_parser().parse_args([*options, "--judges", "asr", "speaker"])
    for task in args.tasks:
        nano_eval.run(task, args)
    # Pitch and speed share the clips of descriptions.
    assert {task: plan.clips for task, plan in plans.items()} == dict.fromkeys(args.tasks, 7) | {
        "description": 14
    }
    assert [task for task, plan in plans.items() if plan.unseen] == ["clone"]
    assert plans["codec"].speech == "real" and plans["tts"].language == "english"
    assert {task: plan.judges for task, plan in plans.items()} == {
        "codec": ["asr", "speaker"],
        "tts": ["asr"],
        "clone": ["asr", "speaker"],
        "description": [],
        "speed": [],
    }
    assert {plan.manifest for plan in plans.values()} == {Path("m.jsonl")}
