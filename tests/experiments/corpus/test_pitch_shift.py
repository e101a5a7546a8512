"""Varied clips: which there are, what they are called, and how they sound."""

from collections import Counter

import numpy as np
import pytest
import soundfile

from experiments.corpus.pitch_shift import SHIFTS, SYNTHETIC_CLIPS, varied_rows, vary
from experiments.corpus.synthesis.cpu_worker import write_audio

ROW = {
    "audio": "audio/kokoro/a.ogg",
    "speaker": "af_sky",
    "speed": 0.8,
    "derived": False,
    "synthetic": True,
}


def test_only_clips_that_train_are_varied():
    rows = [ROW | {"split": split} for split in ("train", "validation", "test")]
    varied = list(varied_rows(rows))
    assert [source for source, _ in varied] == rows[:1] * len(SHIFTS)
    assert ROW["audio"] == rows[0]["audio"]


def test_voices_that_are_drawn_are_not_varied():
    assert not list(varied_rows([ROW | {"split": "train", "derived": True}]))


def test_of_a_synthetic_voice_some_clips_are_varied_and_of_a_recorded_one_all():
    rows = [
        ROW | {"split": "train", "speaker": speaker, "synthetic": speaker != "joan"}
        for _ in range(SYNTHETIC_CLIPS + 5)
        for speaker in ("af_sky", "am_adam", "joan")
    ]
    counts = Counter(source["speaker"] for source, _ in varied_rows(rows))
    few, all_of_them = (len(SHIFTS) * n for n in (SYNTHETIC_CLIPS, SYNTHETIC_CLIPS + 5))
    assert counts == {"af_sky": few, "am_adam": few, "joan": all_of_them}


def test_varied_rows_have_their_names_and_speeds():
    [[_, row]] = [
        pair for pair in varied_rows([ROW | {"split": "train"}]) if pair[1]["semitones"] == -1.5
    ]
    assert row == {
        "audio": "audio/varied/a-1.5.flac",
        "speaker": "af_sky-1.5",
        "speed": pytest.approx(0.8 * 2 ** (-1.5 / 12), abs=1e-4),
        "derived": True,
        "synthetic": True,
        "semitones": -1.5,
        "split": "train",
    }
    prompt = {"audio": "audio/asterisk/a.ogg", "speaker": "af_sky", "synthetic": False}
    prompt |= {"split": "train"}
    names = [(row["speaker"], row["speed"]) for _, row in varied_rows([prompt])]
    assert names[-1] == ("af_sky+3", pytest.approx(2 ** (3 / 12), abs=1e-4))
    assert len(set(names)) == len(SHIFTS)


@pytest.mark.parametrize("shift", SHIFTS)
def test_pitch_goes_up_as_the_length_goes_down(tmp_path, shift):
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(24000) / 24000).astype(np.float32)
    write_audio(tmp_path / "a.ogg", wave)
    vary(tmp_path / "a.ogg", tmp_path / "b.flac", shift)
    heard, rate = soundfile.read(tmp_path / "b.flac")
    assert rate == 24000 and len(heard) == pytest.approx(24000 * 2 ** (-shift / 12), abs=2)
    pitch = np.argmax(np.abs(np.fft.rfft(heard))) * rate / len(heard)
    assert pitch == pytest.approx(440 * 2 ** (shift / 12), abs=2)
