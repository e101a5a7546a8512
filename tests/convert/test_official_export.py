"""Exported checkpoints speak alike in the official package, released ones and those made here."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
import soundfile

from convert.to_orbax import to_orbax
from convert.to_torch import to_torch
from qtts_jax import QwenTTS, embedded
from qtts_jax.configs.presets import tiny, tiny_tokenizer, tokenizer_12hz, tts_12hz
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import initialize
from qtts_jax.io.checkpoint import read_config, save_params
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.text.bpe import copy_text_files
from tests.support.helpers import assert_close

official = pytest.importorskip("golden.official", reason="needs the official package")
pytestmark = pytest.mark.slow

SEED = 20
SETTINGS = ("generation_config.json", "preprocessor_config.json")
TEXT_IDS = ("im_start_id", "im_end_id", "assistant_id", "tts_pad_id", "tts_bos_id", "tts_eos_id")

CUSTOM_VOICE = [
    {"id": "dialect", "text": "The first one.", "speaker": "eric", "language": "Chinese"},
    {"id": "auto", "text": "Another, 2 times?", "speaker": "vivian", "stream_text": True},
    {"id": "instruct", "text": "Slowly.", "speaker": "ryan", "instruct": "A calm voice."},
]
CLONE = [
    {"id": "in_context", "text": "Hello there.", "ref_text": "What was said."},
    {"id": "whole_text", "text": "Hi.", "ref_text": "Said.", "stream_text": False},
    {"id": "timbre", "text": "Only the timbre.", "language": "English", "x_vector_only": True},
]


@pytest.fixture(scope="module")
def recording(tmp_path_factory, detweights):
    """A 16-bit file of 0.7 s, which every reader scales alike."""
    path = tmp_path_factory.mktemp("audio") / "reference.wav"
    soundfile.write(path, detweights.wave(SEED, "reference", 16800, 24000), 24000, subtype="PCM_16")
    return path


EMBEDDED = [
    {"id": "whole_text", "text": "Please hold the line.", "speaker": "joe", "language": "English"},
    {"id": "stream", "text": "A small house.", "speaker": "af_heart", "stream_text": True},
]
DESIGN = [{"id": "described", "text": "Please hold the line.", "instruct": "A high voice."}]


def requests(model_type, recording):
    if model_type == "embedded":
        kind, rows = {"mode": "custom_voice"}, EMBEDDED
    elif model_type == "voice_design":
        kind, rows = {"mode": "voice_design"}, DESIGN
    elif model_type == "custom_voice":
        kind, rows = {"mode": "custom_voice"}, CUSTOM_VOICE
    else:
        kind, rows = {"mode": "voice_clone", "ref_audio": str(recording)}, CLONE
    return [row | kind | {"max_new_tokens": 12} for row in rows]


def speak(tts, request):
    arguments = {
        "language": request.get("language"),
        "max_new_tokens": request["max_new_tokens"],
        "do_sample": False,
        "subtalker_dosample": False,
    }
    if "stream_text" in request:
        arguments["non_streaming_mode"] = not request["stream_text"]
    if request["mode"] == "custom_voice":
        names = {"speaker": request["speaker"], "instruct": request.get("instruct")}
        prepared = tts.prepare_custom_voice(request["text"], **names, **arguments)
    elif request["mode"] == "voice_design":
        prepared = tts.prepare_voice_design(request["text"], request["instruct"], **arguments)
    else:
        voice = tts.create_voice_clone_prompt(
            request["ref_audio"], request.get("ref_text"), request.get("x_vector_only", False)
        )[0]
        prepared = tts.prepare_voice_clone(request["text"], voice, **arguments)
    return tts.synthesize([prepared])[0]


def assert_official_speaks_alike(directory, model_type, recording, scratch):
    """Export `directory` and compare codes and audio of the official package with ours."""
    to_torch(directory, scratch / "exported", report=lambda message: None)
    asked = requests(model_type, recording)
    codes, waves = official.run_official(scratch / "exported", asked)
    tts = QwenTTS.from_pretrained(directory, dtype="float32", exact_reference=True)
    for request in asked:
        name, speech = request["id"], speak(tts, request)
        np.testing.assert_array_equal(speech.codes, codes[name], err_msg=name)
        # Constant codes would hide a wrong export.
        assert len(np.unique(speech.codes[:, 0])) > 1, name
        assert_close(speech.wave, waves[name])


@pytest.mark.parametrize("model_type", ["custom_voice", "base"])
def test_released_checkpoint_speaks_alike_after_a_round_trip(
    released, recording, tmp_path, model_type
):
    to_orbax(released / model_type, tmp_path / "converted", report=lambda message: None)
    assert_official_speaks_alike(tmp_path / "converted", model_type, recording, tmp_path)


def test_the_embedded_checkpoint_speaks_alike(tmp_path):
    assert_official_speaks_alike(embedded.DIRECTORY, "embedded", None, tmp_path)


@pytest.mark.parametrize("first", ["base", "voice_design"])
def test_the_embedded_checkpoint_speaks_alike_as_each_of_its_types(first, recording, tmp_path):
    made = tmp_path / "made"
    shutil.copytree(embedded.DIRECTORY, made)
    config = TTSConfig.from_hf(read_config(made))
    others = tuple(each for each in config.types if each != first)
    config = replace(config, model_type=first, further_types=others)
    (made / "config.json").write_text(json.dumps(config.to_hf()))
    assert_official_speaks_alike(made, first, recording, tmp_path)


@pytest.mark.parametrize("model_type", ["custom_voice", "base"])
def test_checkpoint_made_here_speaks_alike(released, recording, tmp_path, model_type):
    made = tmp_path / "made"
    make_checkpoint(released / model_type, made, model_type)
    assert_official_speaks_alike(made, model_type, recording, tmp_path)


def make_checkpoint(text_source, directory, model_type):
    """Write a checkpoint of our own sizes and parameters with the text files of another one."""
    speech_directory = directory / "speech_tokenizer"
    speech_directory.mkdir(parents=True)
    copy_text_files(text_source, directory)
    for name in SETTINGS:
        shutil.copyfile(text_source / name, directory / name)
    name = "speech_tokenizer/preprocessor_config.json"
    shutil.copyfile(text_source / name, directory / name)

    text = TTSConfig.from_hf(read_config(text_source))
    config = tiny(tts_12hz("1b7", model_type))
    talker = replace(config.talker, text_vocab_size=text.talker.text_vocab_size)
    ids = {name: getattr(text, name) for name in TEXT_IDS}
    config = unlike_the_released(replace(config, talker=talker, **ids))
    speech = tokenizer_unlike_the_released(tiny_tokenizer(tokenizer_12hz()))
    for folder, module, model in (
        (directory, TTSModel, config),
        (speech_directory, Tokenizer12Hz, speech),
    ):
        (folder / "config.json").write_text(json.dumps(model.to_hf()))
        save_params(folder, as_if_trained(initialize(module, model, SEED)))


def unlike_the_released(config):
    """Other values for what every released config has in common: the official reader has defaults
    for many fields, which would hide that one is not written."""
    talker = config.talker
    stack = replace(talker.transformer, rope_theta=3e4, norm_eps=1e-2)
    small = replace(talker.code_predictor.transformer, layers=3, rope_theta=7e2, norm_eps=3e-2)
    predictor = replace(talker.code_predictor, transformer=small)
    return replace(config, talker=replace(talker, transformer=stack, code_predictor=predictor))


def tokenizer_unlike_the_released(config):
    encoder, decoder = config.encoder, config.decoder
    return replace(
        config,
        encoder=replace(
            encoder,
            residual_layers=2,
            dilation_growth=3,
            last_kernel=5,
            ratios=(5, 4, 8, 6),
            transformer=replace(encoder.transformer, rope_theta=2e2, norm_eps=1e-2),
            quantizer=replace(encoder.quantizer, books=20),
        ),
        decoder=replace(
            decoder,
            upsample_rates=(6, 5, 4, 4),
            transformer=replace(decoder.transformer, rope_theta=3e2, norm_eps=2e-2, window=4),
        ),
    )


def as_if_trained(params):
    """Move every parameter, so that no two norms, scales or biases are alike."""
    rng = np.random.default_rng(SEED)
    return jax.tree.map(
        lambda x: np.asarray(x + 0.05 * rng.standard_normal(x.shape), np.float32), params
    )
