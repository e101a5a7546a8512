"""Reports say what the rows say; what was judged once is remembered."""

import json
from dataclasses import replace

import numpy as np
import pytest

from qtts_jax.errors import EvaluationError, QTTSError
from qtts_jax.evaluation.memo import Memo, digest
from qtts_jax.evaluation.panel import Panel
from qtts_jax.evaluation.report import Report, score
from qtts_jax.evaluation.rows import Row
from qtts_jax.evaluation.run import Plan, evaluate
from qtts_jax.evaluation.sample import Sample
from tests.support.fake_metrics import TTS, panel, write_manifest

ROWS = [
    Row("original", {"a": {"wer": (1, 4)}, "b": {"wer": (1, 6)}}),
    Row("model", {"a": {"stoi": (0.5, 1)}, "b": {"stoi": (0.7, 1)}}, {"frames": 7}),
]


def test_report_files(tmp_path):
    report = Report("codec", ROWS, {"clips": 2, "judges": {"asr": "x 1"}}, ["A note."])
    names = [p.name for p in report.write(tmp_path, plot=False)]
    assert names == ["codec.json", "codec.md", "codec.clips.jsonl"]
    data = json.loads((tmp_path / "codec.json").read_text())
    assert data["rows"][0]["scores"]["wer"]["value"] == pytest.approx(2 / 10)
    assert data["rows"][1]["details"] == {"frames": 7}
    text = (tmp_path / "codec.md").read_text()
    assert "| WER % ↓ | 20.0 [16.7, 25.0] |  |" in text
    assert "| STOI ↑ |  | 0.600 [0.500, 0.700] |" in text
    assert "model: frames 7" in text and "A note." in text and "judges: asr x 1" in text
    lines = [json.loads(x) for x in (tmp_path / "codec.clips.jsonl").read_text().splitlines()]
    assert lines[1] == {"row": "original", "clip": "b", "scores": {"wer": [1, 6]}}


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    Report("codec", ROWS).write(tmp_path)
    assert (tmp_path / "codec.png").read_bytes()[:4] == b"\x89PNG"


def test_nothing_to_draw_is_no_plot(tmp_path):
    Report("speed", [Row("one at a time", {})]).write(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "speed.clips.jsonl",
        "speed.json",
        "speed.md",
    ]


def test_score_is_in_the_unit_of_the_table():
    assert score(ROWS[0], "wer").value == pytest.approx(20)
    assert score(ROWS[0], "sim") is None


def test_memo_asks_a_judge_once(tmp_path):
    scored = []

    def judge(sample):
        scored.append(sample.clip)
        return {"mos": (3.5, 1)}

    wave = np.ones(5, np.float32)
    sample = Sample("a", wave, "text", "english")
    path = tmp_path / "memo.jsonl"
    assert Memo(path)("mos 1", judge, sample) == {"mos": (3.5, 1)}
    # A killed run leaves half a line.
    path.write_text(path.read_text() + '{"key": "mos')
    again = Memo(path)
    assert again("mos 1", judge, replace(sample, clip="b")) == {"mos": (3.5, 1)}
    assert scored == ["a"]
    again("mos 2", judge, sample)
    again("mos 1", judge, replace(sample, wave=wave + 1))
    assert len(scored) == 3
    path.write_bytes(b"\xff")
    with pytest.raises(EvaluationError, match=r"memo.jsonl cannot be read .*; remove it"):
        Memo(path)


def test_a_changed_judge_judges_again(tmp_path, monkeypatch):
    scored = []

    def judge(sample):
        scored.append(sample.clip)
        return {"mos": (3.5, 1)}

    sample = Sample("a", np.ones(5, np.float32), "text", "english")
    for code in ("1", "1", "2"):
        monkeypatch.setattr("qtts_jax.evaluation.panel._own_version", lambda code=code: code)
        Panel({"mos": judge}, {"mos": "x 1"}, tmp_path / "memo.jsonl").scores(sample)
    assert len(scored) == 2


def test_everything_that_is_judged_is_in_the_digest():
    wave = np.ones(5, np.float32)
    sample = Sample("a", wave, "text", "english", aligned=wave)
    others = [
        replace(sample, text="other"),
        replace(sample, language="german"),
        replace(sample, aligned=None),
        replace(sample, aligned=None, voice=wave),
        replace(sample, seconds=1.0),
        replace(sample, expected_seconds=1.0),
    ]
    assert len({digest(s) for s in [sample, *others]}) == 1 + len(others)


def test_an_evaluation_from_manifest_to_report(tmp_path, monkeypatch):
    real = {"synthetic": False, "split": "test", "source": "here"}
    manifest = write_manifest(tmp_path, [("ann", "one two", 120, real), ("bob", "four", 200, real)])
    monkeypatch.setattr("qtts_jax.evaluation.run.Panel.load", lambda names, memo: panel())
    plan = Plan("tts", manifest, tmp_path / "out", min_seconds=0.5, plot=False)
    report = evaluate(plan, lambda: TTS("custom_voice"), {"model": "fake"})
    assert report.about["real clips"] == 2 and report.about["sources"] == ["here"]
    data = json.loads((tmp_path / "out" / "tts.json").read_text())
    assert [row["name"] for row in data["rows"]] == ["recordings", "speech"]
    assert data["about"]["model"] == "fake"


def test_a_plan_that_cannot_be_done_loads_no_model(tmp_path):
    def load():
        raise AssertionError("loaded")

    manifest = write_manifest(tmp_path, [("ann", "one two", 120, {"split": "test"})])
    good = Plan("tts", manifest, tmp_path / "out", min_seconds=0.5, plot=False)
    for bad in (
        replace(good, task="sing"),
        replace(good, manifest=tmp_path / "none.jsonl"),
        replace(good, judges=["mozart"]),
        replace(good, judges=["pesq"]),
        replace(good, pairs=tmp_path / "none.jsonl"),
        replace(good, out=manifest),
    ):
        with pytest.raises(QTTSError):
            evaluate(bad, load)
    with pytest.raises(AssertionError, match="loaded"):
        evaluate(replace(good, judges=[]), load)
