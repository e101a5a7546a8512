"""Which pieces a run has, and which of them runs share."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from experiments.runner import ablation
from experiments.runner.pieces import Setting, pieces_of, tokenizer_waves
from experiments.runner.scale_small import SMALL
from qtts_jax import data
from qtts_jax.errors import ConfigError

RECORDS = [SimpleNamespace(text="A sailor sold boats.", language="english", speaker="voice")]
RATE = ablation.load("rate").variations


def names_and_keys(tmp_path, variation, seed, teacher):
    setting = Setting(SMALL, tmp_path, SimpleNamespace(digest="data"), teacher, ())
    pieces = pieces_of(setting, SMALL.recipe(RATE[variation], RECORDS), seed)
    return {piece.name: piece.key for piece in pieces}


def test_all_12_hz_runs_share_the_features_of_a_whisper_encoder(tmp_path):
    teacher = tmp_path / "whisper"
    teacher.mkdir()
    (teacher / "weights").write_bytes(b"12")
    first = names_and_keys(tmp_path, "12.5 Hz x 16", 0, teacher)
    second = names_and_keys(tmp_path, "25 Hz x 8", 1, teacher)
    assert list(first) == ["features", "tokenizer", "codes", "talker", "scores"]
    assert first["features"] == second["features"]
    assert first["tokenizer"] != second["tokenizer"]
    assert "features" not in names_and_keys(tmp_path, "25 Hz x 1", 0, teacher)


def test_stored_features_are_no_piece(tmp_path):
    (tmp_path / "teacher.npz").write_bytes(b"12")
    found = names_and_keys(tmp_path, "12.5 Hz x 16", 0, tmp_path / "teacher.npz")
    assert list(found) == ["tokenizer", "codes", "talker", "scores"]


def test_a_recipe_with_a_teacher_is_refused_without_one(tmp_path):
    (tmp_path / "teacher.npz").write_bytes(b"12")
    for variation, teacher in (
        ("12.5 Hz x 16", None),
        ("25 Hz x 1", None),
        ("25 Hz x 1", tmp_path / "teacher.npz"),  # an encoder cannot begin as stored features
    ):
        with pytest.raises(ConfigError, match="--teacher names a Whisper encoder"):
            names_and_keys(tmp_path, variation, 0, teacher)
    without = SMALL.recipe({"stages.*.training.teacher_width": None}, RECORDS)
    assert pieces_of(Setting(SMALL, tmp_path, SimpleNamespace(digest="data"), None, ()), without, 0)


def test_a_tokenizer_trains_on_a_part_of_the_training_clips(tmp_path):
    lines = []
    for i, split in enumerate(("train", "train", "test", "train", "train")):
        soundfile.write(tmp_path / f"{i}.flac", 0.1 * np.sin(np.arange(2400) / (5 + i)), 24000)
        lines.append({"audio": f"{i}.flac", "text": f"Sentence {i}.", "language": "english",
                      "speaker": "ann", "split": split})  # fmt: skip
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    dataset = data.prepare(tmp_path / "manifest.jsonl", tmp_path / "dataset", progress=False)
    for most, clips in ((2, [0, 3]), (None, [0, 1, 3, 4]), (9, [0, 1, 3, 4])):
        setting = Setting(replace(SMALL, tokenizer_clips=most), tmp_path, dataset, None, ())
        assert tokenizer_waves(setting).indices.tolist() == clips
