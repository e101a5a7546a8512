"""The tables agree with the tensor lists of the released checkpoints, name by name."""

import json
from pathlib import Path

import pytest

from convert.faults import Faults
from convert.models import build_model
from convert.rules import plan

GOLDEN = Path(__file__).parents[1] / "golden"
CHECKPOINTS = {
    "Qwen3-TTS-12Hz-0.6B-Base": "keys_0.6B-Base",
    "Qwen3-TTS-12Hz-0.6B-CustomVoice": "keys_0.6B-CustomVoice",
    "Qwen3-TTS-12Hz-1.7B-Base": "keys_1.7B-Base",
    # CustomVoice and VoiceDesign of one size hold the same tensors.
    "Qwen3-TTS-12Hz-1.7B-CustomVoice": "keys_1.7B-VoiceDesign",
    "Qwen3-TTS-12Hz-1.7B-VoiceDesign": "keys_1.7B-VoiceDesign",
    "Qwen3-TTS-Tokenizer-12Hz": "keys_tokenizer_12hz",
}


def released_keys(name):
    lines = (GOLDEN / "keys" / f"{name}.txt").read_text().splitlines()
    pairs = (line.split("\t") for line in lines if not line.startswith("#"))
    return {key: tuple(json.loads(shape)) for key, shape in pairs}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_tensor_has_its_place_and_every_parameter_its_tensors(name):
    config = json.loads((GOLDEN / "configs" / f"{name}.config.json").read_text())
    model = build_model(config, name)
    faults = Faults()
    parts = plan(model.rules, model.shapes, faults)
    faults.raise_any(name)  # every parameter is filled exactly once
    ours, released = {part.source: part.shape for part in parts}, released_keys(CHECKPOINTS[name])
    assert ours == released
    assert len(parts) == len(released)
