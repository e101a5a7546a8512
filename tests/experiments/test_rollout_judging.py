"""Judges in processes of their own, and judges that score all speech at once."""

import multiprocessing
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.train import rollout_judging
from experiments.train.rollout_judging import Expected, Judging
from qtts_jax.evaluation import panel

RATE = 24_000
PROMPTS = [{"text": "Ten ten.", "language": "english"}, {"text": "No.", "language": "English"}]
EXPECTED = Expected(np.array([1.0, 2.0]), {})


def spoken(*seconds):
    wave = np.sin(np.arange(3 * RATE) / 40).astype(np.float32)
    return [SimpleNamespace(wave=wave[: int(s * RATE)], ended=s < 2) for s in seconds]


@pytest.mark.slow
def test_processes_give_the_scores_of_one(tmp_path):
    speech = spoken(1.5, 0.5, 2.0)
    alone = Judging(["duration"], PROMPTS, EXPECTED, RATE).scores([0, 0, 1], speech)
    assert [s["duration"][0] for s in alone] == pytest.approx([0.5, 0.5, 0.0])
    assert [s["no_eos"][0] for s in alone] == [0, 0, 1]
    memo = tmp_path / "scores.jsonl"
    several = Judging(["duration"], PROMPTS, EXPECTED, RATE, memo, processes=2)
    assert several.scores([0, 0, 1], speech) == alone
    # As `timeout` and Ctrl-C do: the process that trains ends them, and scores until then.
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGTERM)
    assert several.scores([0, 0, 1], speech) == alone
    several.close()
    # A process may score again what another one has scored, and adds the same line.
    assert len(set(memo.read_text().splitlines())) == 3


def test_judges_on_the_devices_score_all_speech_at_once(monkeypatch):
    class Whisper:
        first = "10:10"

        def __init__(self, precision):
            pass

        def transcribe(self, waves, languages):
            assert languages == ["english", "english"] and not len(waves[1])
            return [self.first, ""]

    class Beam:
        def transcribe(self, wave, language):
            assert len(wave) and language == "english"
            return "Ten."

    class Opinions:
        def scores(self, waves, precision):
            assert len(waves) == 1  # without speech there is no opinion
            return [3.5]

    monkeypatch.setattr(rollout_judging, "WhisperBatchJudge", Whisper)
    monkeypatch.setattr(rollout_judging, "DistillMOSJudge", Opinions)
    monkeypatch.setattr(rollout_judging, "WhisperJudge", Beam)
    judging = Judging(["asr", "mos", "duration"], PROMPTS, EXPECTED, RATE, devices=True)
    first, second = judging.scores([0, 1], spoken(1.0, 0.0))
    assert first["wer"] == (0, 2) and first["mos"] == (3.5, 1)
    assert second["wer"] == (1, 1) and "mos" not in second
    assert second["duration"] == (1.0, 1)
    # A transcript that repeats itself without end is made again, with a beam.
    Whisper.first = "1/2 cup of " * 30
    assert judging.scores([0, 1], spoken(1.0, 0.0))[0]["wer"] == (1, 2)


def test_likeness_on_the_devices_is_that_of_the_panel(monkeypatch):
    class Embedder:
        def embed(self, wave):
            return self.embed_all([wave])[0]

        def embed_all(self, waves, threads=1):
            return [np.array([np.cos(len(w)), np.sin(len(w))], np.float32) for w in waves]

    monkeypatch.setattr(rollout_judging, "SpeakerJudge", Embedder)
    monkeypatch.setattr(panel, "SpeakerJudge", Embedder)
    prompts = [PROMPTS[0] | {"speaker": "ryan"}, PROMPTS[1]]
    expected = Expected(np.array([1.0, 2.0]), {"ryan": np.ones(16_000, np.float32)})
    # Too little speech, and a speaker without a recording, have no likeness.
    speech = spoken(1.0, 1.3, 0.1, 1.0)
    for judges in (["speaker"], ["speaker", "duration"]):
        one_by_one = Judging(judges, prompts, expected, RATE).scores([0, 0, 0, 1], speech)
        at_once = Judging(judges, prompts, expected, RATE, processes=2, devices=True)
        found = at_once.scores([0, 0, 0, 1], speech)
        assert found == one_by_one and ["sim" in s for s in found] == [True, True, False, False]
    assert not multiprocessing.active_children()
