"""The benchmark of drafts: its committed table is of its committed figures, and it runs."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.bench import draft_acceptance
from experiments.bench.draft_table import table
from tests.support.helpers import ROOT

RESULTS = ROOT / "experiments/results"


def test_the_committed_table_is_that_of_the_figures():
    result = json.loads((RESULTS / "drafts.json").read_text())
    assert table(result) == (RESULTS / "drafts.md").read_text()
    for setting in result["settings"].values():
        assert setting["passes"]["1"] == result["residual_codebooks"]
        shares = [*setting["acceptance"].values()]
        assert shares == sorted(shares, reverse=True)


def test_groups_are_filled_up_with_copies_of_the_last_frame():
    frames = draft_acceptance.PredictorFrames(*(np.arange(5) for _ in range(4)))
    groups, count = draft_acceptance.groups_of(frames, 3)
    assert count == 5
    np.testing.assert_array_equal(groups.codes, [[0, 1, 2], [3, 4, 4]])


def test_a_model_without_drafts_is_refused(monkeypatch):
    talker = SimpleNamespace(code_predictor=None)
    model = SimpleNamespace(config=SimpleNamespace(talker=talker))
    monkeypatch.setattr(draft_acceptance.QwenTTS, "from_pretrained", lambda _: model)
    monkeypatch.setattr(sys, "argv", ["draft_acceptance"])
    with pytest.raises(draft_acceptance.QTTSError, match="has no drafts; use a sequential one"):
        draft_acceptance.main()


@pytest.mark.slow
def test_figures_of_the_shipped_voice(monkeypatch, tmp_path):
    options = ["--texts", "1", "--frames", "8", "--settings", "checkpoint", "--windows", "1", "3"]
    options += ["--timed-frames", "4", "--repeats", "1", "--no-released", "--out", tmp_path / "x"]
    monkeypatch.setattr(sys, "argv", ["draft_acceptance", *map(str, options)])
    draft_acceptance.main()
    result = json.loads((tmp_path / "x.json").read_text())
    figures = result["settings"]["checkpoint"]
    assert figures["passes"]["1"] == 21 > figures["passes"]["3"]
    assert 0.2 < figures["acceptance"]["1"] < 0.8
    assert (tmp_path / "x.md").read_text() == table(result)
