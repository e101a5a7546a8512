"""Pitch and pace are measured as they are, and described by thirds of the corpus."""

import importlib
import json

import numpy as np
import pytest

from qtts_jax.data.dataset import load_waves
from qtts_jax.data.measure import median_pitch, speaking_rate
from qtts_jax.data.voice_descriptions import (
    FILE,
    VoiceDescription,
    describe_voices,
    sentences,
    thirds,
)
from qtts_jax.errors import DataError
from tests.support.speech_files import RATE, corpus, half_written, tone, write_manifest

prepare = importlib.import_module("qtts_jax.data.prepare").prepare


@pytest.mark.parametrize("rate", [8000, 24000])
@pytest.mark.parametrize("hertz", [75, 110, 163, 220, 340])
def test_the_pitch_of_a_tone_is_found(hertz, rate):
    wave = tone(hertz, 0.6, rate)
    assert median_pitch(wave, rate) == pytest.approx(hertz, rel=0.03)
    noisy = wave + np.random.default_rng(0).normal(0, 0.03, len(wave)).astype(np.float32)
    assert median_pitch(noisy, rate) == pytest.approx(hertz, rel=0.03)


def test_noise_and_silence_have_no_pitch():
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    assert median_pitch(noise, 24000) is None
    assert median_pitch(np.zeros(16000, np.float32), 24000) is None


def test_pauses_do_not_slow_speech_down():
    wave = tone(120, 2.0)
    text = "twenty letters or so, here"
    rate = speaking_rate(wave, RATE, text)
    assert rate == pytest.approx(sum(c.isalnum() for c in text) / 2.0, rel=0.03)
    paused = np.concatenate([np.zeros(RATE), wave[:RATE], np.zeros(3 * RATE), wave[RATE:]])
    assert speaking_rate(paused.astype(np.float32), RATE, text) == pytest.approx(rate, rel=0.05)
    assert speaking_rate(wave[: RATE // 2], RATE, text) > 3 * rate


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpus")
    dataset = prepare(corpus(directory, 12), directory / "set", sample_rate=RATE, held_out=0.0,
                      progress=False)  # fmt: skip
    return dataset, describe_voices(dataset, load_waves(dataset, progress=False), progress=False)


def test_classes_are_thirds_of_each_sex(described):
    dataset, voices = described
    # Speakers of about 105, 165 and 225 Hz.
    assert voices.sex == {"speaker0": "male", "speaker1": "female", "speaker2": "female"}
    women = [i for i, r in enumerate(dataset.records) if r.speaker != "speaker0"]
    order = sorted(women, key=lambda i: voices.pitch[i])
    classes = [voices.voice_class(i).pitch for i in order]
    assert classes == sorted(classes, key=("low", "medium", "high").index)
    assert {classes.count(c) for c in set(classes)} <= {2, 3, 4} and len(set(classes)) == 3
    paces = [voices.voice_class(i).pace for i in np.argsort(voices.pace)]
    assert paces == ["slow"] * 4 + ["medium"] * 4 + ["fast"] * 4


def test_a_speaker_with_many_clips_does_not_decide_what_is_high():
    few = [("a", 100.0), ("b", 120.0), ("c", 140.0)]
    many = few + [("c", 140.0)] * 500
    low, high = thirds(many)
    assert low == pytest.approx(thirds(few)[0], abs=4) and 100 < low < 120 < high < 140


def test_measurements_are_kept_beside_the_dataset(described):
    dataset, voices = described
    again = describe_voices(dataset, progress=False)
    assert (again.pitch, again.pace, again.thresholds) == (
        voices.pitch, voices.pace, voices.thresholds,
    )  # fmt: skip
    path = dataset.directory / FILE
    kept = path.read_text()
    for wrong in ("{", kept.replace(dataset.digest, "0" * 64)):
        path.write_text(wrong)
        with pytest.raises(DataError, match="remove it"):
            describe_voices(dataset)
    path.write_text(kept)


def test_the_manifest_decides_the_sex(tmp_path):
    manifest = corpus(tmp_path, 3, sex="male")
    dataset = prepare(manifest, tmp_path / "set", sample_rate=RATE, progress=False)
    left = half_written(dataset.directory, FILE)
    voices = describe_voices(dataset, progress=False)
    assert not left.exists()
    assert set(voices.sex.values()) == {"male"}
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[1]["sex"] = "tenor"
    write_manifest(tmp_path, lines)
    dataset = prepare(manifest, tmp_path / "other", sample_rate=RATE, progress=False)
    with pytest.raises(DataError, match="line 2 of .* 'tenor'"):
        describe_voices(dataset, progress=False)


def test_sentences_say_what_is_known_in_several_wordings():
    full = sentences(VoiceDescription("female", "high", "fast"))
    assert len(set(full)) == len(full) > 15
    assert all(s[0].isupper() and s.endswith(".") and "{" not in s for s in full)
    assert not any(" man" in s or "None" in s or "low" in s for s in full)
    unknown = sentences(VoiceDescription(None, None, "slow"))
    assert unknown and not any(
        word in s for s in unknown for word in ("pitch", "tone", "man", "male", "None")
    )
    by_class = [set(sentences(VoiceDescription("male", p, "slow"))) for p in ("low", "high")]
    assert by_class[0] != by_class[1]
