"""Which pieces a run has, and which of them runs share."""

from types import SimpleNamespace

import pytest

from experiments.runner import ablation
from experiments.runner.pieces import Setting, pieces_of
from experiments.runner.scale_small import SMALL
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
    with pytest.raises(ConfigError, match="--teacher names a Whisper encoder"):
        names_and_keys(tmp_path, "12.5 Hz x 16", 0, None)
    assert names_and_keys(tmp_path, "25 Hz x 1", 0, None)
