"""Checkpoints whose code predictor has a pattern of its own: public verbs, streams and export."""

import json
import shutil

import numpy as np
import pytest

from convert.to_torch import to_torch
from qtts_jax import CustomVoice, QwenTTS
from qtts_jax.errors import CheckpointError, ConfigError

TEXT = "Hello there, this is a test."


def with_pattern(folder, pattern):
    """Set the pattern in the config.json of a checkpoint."""
    path = folder / "config.json"
    data = json.loads(path.read_text())
    data["talker_config"]["code_predictor_config"]["qtts_jax_pattern"] = pattern
    path.write_text(json.dumps(data))


@pytest.fixture(scope="module", params=["parallel", "delay"])
def checkpoint(request, converted, tmp_path_factory):
    """A golden checkpoint with the same parameters and another pattern."""
    folder = tmp_path_factory.mktemp("pattern") / request.param
    shutil.copytree(converted("custom_voice"), folder)
    with_pattern(folder, request.param)
    return folder


@pytest.fixture(scope="module")
def model(checkpoint):
    return QwenTTS.from_pretrained(checkpoint, dtype="float32")


def request(seed, frames):
    return CustomVoice(TEXT, "ryan", "english", seed=seed, sampling={"max_new_tokens": frames})


def test_streamed_audio_equals_whole_audio_of_a_batch(model):
    requests = [request(3, 12), request(4, 7)]
    spoken = model.generate(requests)
    assert 1 < len(spoken[0].codes) <= 11 and 1 < len(spoken[1].codes) <= 6
    for each, speech in zip(requests, spoken, strict=True):
        assert speech.codes.min() >= 0
        streamed = np.concatenate(list(model.stream(each, chunk_frames=(2, 3))))
        np.testing.assert_allclose(streamed, speech.wave, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_text_that_arrives_in_parts_gives_the_streaming_text_layout(model):
    options = {"seed": 5, "max_new_tokens": 9, "language": "English"}
    (whole,), _ = model.generate_custom_voice(TEXT, "ryan", non_streaming_mode=False, **options)
    parts = (TEXT[i : i + 3] for i in range(0, len(TEXT), 3))
    arriving = np.concatenate(list(model.stream_custom_voice(parts, "ryan", **options)))
    np.testing.assert_allclose(arriving, whole, rtol=0, atol=1e-5)


def test_the_official_layout_has_no_place_for_it(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match="official package has 'sequential' only") as fault:
        to_torch(checkpoint, tmp_path / "torch")
    assert checkpoint.name in str(fault.value) and str(fault.value).count(".") == 1
    assert not (tmp_path / "torch").exists()


def test_an_unknown_pattern_is_refused(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "copy")
    with_pattern(tmp_path / "copy", "flat")
    with pytest.raises(ConfigError, match="qtts_jax_pattern is 'flat'; it must be one of seq"):
        QwenTTS.from_pretrained(tmp_path / "copy")
