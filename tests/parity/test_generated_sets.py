"""The stored cases in `extra/` and the scripts that made them belong together."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.golden_tools import cases, detweights
from tests.golden_tools.small_checkpoints import model_config, tokenizer_config, write_text_files
from tests.golden_tools.specs import SPECS
from tests.support.helpers import GOLDEN

EXTRA = GOLDEN / "extra"


def test_drawn_values_are_pinned():
    drawn = detweights.uniform01(7, "a.weight", 3)
    np.testing.assert_array_equal(
        drawn,
        np.array([0.22413450479507446, 0.7396384477615356, 0.6059465408325195], np.float32),
        err_msg="every golden weight would change",
    )


def test_block_size_does_not_change_the_draw(monkeypatch):
    whole = detweights.symmetric(3, "x", (5, 7), 2.0)
    monkeypatch.setattr(detweights, "_BLOCK", 4)
    np.testing.assert_array_equal(detweights.symmetric(3, "x", (5, 7), 2.0), whole)


@pytest.mark.parametrize("name", SPECS)
def test_stored_checkpoint_files_follow_from_the_spec(name, tmp_path):
    spec, stored = SPECS[name], EXTRA / name / "checkpoint"
    text_vocab, special = write_text_files(spec, tmp_path)
    for file in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        assert (tmp_path / file).read_bytes() == (stored / file).read_bytes()
    assert model_config(spec, text_vocab, special) == _json(stored / "config.json")
    assert tokenizer_config(spec) == _json(stored / "speech_tokenizer" / "config.json")


@pytest.mark.parametrize("name", SPECS)
def test_stored_requests_and_outputs_are_complete(name):
    lines = (EXTRA / name / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    requests = [json.loads(line) for line in lines]
    index = _json(EXTRA / name / "index.json")
    groups = cases.generation_groups(SPECS[name])
    assert requests == [r for g in groups for r in g.requests]
    assert [g["ids"] for g in index["groups"]] == [[r["id"] for r in g.requests] for g in groups]
    with np.load(EXTRA / name / "outputs.npz") as outputs:
        for request in requests:
            described = index["requests"][request["id"]]
            shape = outputs[f"{request['id']}/codes"].shape
            assert shape == (described["frames"], SPECS[name].books)
            assert described["stopped"] or shape[0] == request["max_new_tokens"] - 1
            assert f"{request['id']}/wave" in outputs


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_official_package_still_gives_the_stored_outputs(name, tmp_path):
    pytest.importorskip("official")
    from generate import generate

    index = _json(EXTRA / name / "index.json")
    strides = (index["wave_stride"], index["prompt_stride"])
    fresh = generate(SPECS[name], tmp_path, index["seed"], strides)
    assert fresh["texts"] == index["texts"]
    with (
        np.load(tmp_path / "outputs.npz") as now,
        np.load(EXTRA / name / "outputs.npz") as stored,
    ):
        assert now.files == stored.files
        for key in stored.files:
            np.testing.assert_allclose(now[key], stored[key], rtol=0, atol=1e-5, err_msg=key)


def _json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))
