"""A new question of twenty lines, from speech to table; two of its variations fail."""

import json
import subprocess
import sys
from argparse import Namespace

import pytest

from experiments.run import planned
from experiments.runner.ablation import load
from tests.support.helpers import ROOT

QUESTION = '''"""Must the talker be wide?

    python -m experiments.run width.py

Answer: not run.
"""

WIDTH = "model.talker.transformer.ffn_width"
SHORT = {
    "stages.*.trainer.steps": 6,
    "stages.*.trainer.save_every": 4,
    "talker_trainer.steps": 6,
}
VARIATIONS = {
    "wide": SHORT,
    "odd heads": SHORT | {"model.talker.transformer.head_dim": 31},
    "too short": SHORT | {"talker_batches.positions": (16,)},
    "narrow": SHORT | {WIDTH: 32},
}
'''


def ablation(folder, *options):
    argv = [sys.executable, "-m", "experiments.run", str(folder / "width.py"), "--seeds", "1",
            "--out", str(folder / "out"), *options]  # fmt: skip
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.by_hand
def test_a_new_ablation_of_twenty_lines_runs(tmp_path):
    (tmp_path / "width.py").write_text(QUESTION)
    assert len(QUESTION.splitlines()) <= 22
    done = ablation(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 of 4 runs failed" in done.stderr
    results = tmp_path / "out/results/tiny"
    text = (results / "width.md").read_text()
    assert "| wide (1) |" in text and "| narrow (1) |" in text and "STOI" in text
    assert "Failed: odd heads, seed 0: head_dim must be even" in text
    assert "Failed: too short, seed 0: talker: " in text and "positions" in text
    assert (results / "width.png").is_file()
    wide, narrow = (json.loads((results / f"width/{n}.seed0.json").read_text())
                    for n in ("wide", "narrow"))  # fmt: skip
    assert wide["tokenizer"] == narrow["tokenizer"]  # trained once
    assert wide["talker"]["parameters"] > narrow["talker"]["parameters"]
    assert wide["talker"]["flops"] > narrow["talker"]["flops"]
    assert len(wide["scores"]["scores"]["talker"]["loss_first"]) == 12
    args = Namespace(names=[str(tmp_path / "width.py")], out=tmp_path / "out", scale="tiny",
                     seeds=1, judges=None, minutes=None, data=None, teacher=None)  # fmt: skip
    left, _, failures = planned(args, [load(args.names[0])], tmp_path / "out/results")
    assert list(left) == [("width", "too short", 0)]
    assert list(failures) == [("width", "odd heads", 0)]
