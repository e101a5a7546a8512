"""Configuration of the 25 Hz tokenizer: what is read, what is refused, what the presets are."""

import json
from dataclasses import replace

import pytest

from qtts_jax.configs.presets import (
    tiny_tokenizer_25hz,
    tokenizer_25hz,
    tokenizer_25hz_class_defaults,
)
from qtts_jax.configs.tokenizer_25hz import TOKENIZER_25HZ, Quirks25Hz, Tokenizer25HzConfig
from qtts_jax.errors import ConfigError
from tests.support.helpers import GOLDEN


def golden_config():
    path = GOLDEN / "ckpt" / "tokenizer_25hz" / "config.json"
    return json.loads(path.read_text())


def test_a_stored_file_is_read_and_written_with_every_value():
    data = golden_config()
    config = Tokenizer25HzConfig.from_hf(data)
    written = json.loads(json.dumps(config.to_hf()))
    assert Tokenizer25HzConfig.from_hf(written) == config

    def compare(ours, theirs):
        for key, value in theirs.items():
            if isinstance(value, dict):
                compare(ours[key], value)
            elif key != "dropout":  # training only
                assert ours[key] == value, key

    compare(written, data)
    assert hash(config) == hash(Tokenizer25HzConfig.from_hf(written))


def test_absent_fields_are_the_class_defaults():
    config = tokenizer_25hz_class_defaults()
    assert (config.encoder.width, config.encoder.layers, config.encoder.window) == (1280, 32, 100)
    assert (config.decoder.dit.layers, config.decoder.dit.block) == (22, 24)
    assert config.decoder.vocoder.samples_per_frame == 240
    assert config.decode_upsample_rate == 1920
    assert config.samples_per_frame == 480
    # What the official classes write holds fields of their base class, and only what differs.
    data = golden_config()
    data["encoder_config"] |= {"model_type": "qwen3_tts_tokenizer_v1_encoder", "top_k": 50}
    del data["encoder_config"]["n_window"]
    with pytest.raises(ConfigError, match="n_window is 100, more than the 60 positions"):
        Tokenizer25HzConfig.from_hf(data)
    del data["encoder_config"]["n_ctx"]
    assert Tokenizer25HzConfig.from_hf(data).encoder.max_positions == 1500


def test_the_class_defaults_do_not_fit_themselves_and_the_preset_does():
    assert "8193 codes" in tokenizer_25hz_class_defaults().inconsistency()
    config = tokenizer_25hz()
    assert config.inconsistency() is None
    assert config.frame_rate == 25
    assert config.decoder.samples_per_code == config.decode_upsample_rate == 960
    assert config.encoder.samples_per_code == config.encode_downsample_rate == 640
    # The codes of an attention block are the packet of 8 codes.
    assert config.decoder.dit.block // config.decoder.dit.repeats == 8
    slower = replace(config, output_sample_rate=48000)
    assert "makes 25 codes a second, the decoder reads 50" in slower.inconsistency()


def test_tiny_keeps_every_rate():
    config = tiny_tokenizer_25hz(tokenizer_25hz())
    assert config.inconsistency() is None
    assert config.samples_per_frame == 960
    assert config.encoder.window == 100
    assert Tokenizer25HzConfig.from_hf(config.to_hf()) == config


ENCODER = ("encoder_config",)
DIT = ("decoder_config", "dit_config")
VOCODER = ("decoder_config", "bigvgan_config")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model_type",), None, "lacks 'model_type'"),
        (("model_type",), "qwen3_tts_tokenizer_12hz", f"only '{TOKENIZER_25HZ}' is supported"),
        (("encoder_config",), None, "lacks 'encoder_config'"),
        (DIT, None, "lacks 'dit_config'"),
        (VOCODER, [], "must be a JSON object"),
        (("output_sample_rate",), 0, "output_sample_rate must be positive"),
        (("sampling_rate",), 16000, "unknown field 'sampling_rate'"),
        ((*ENCODER, "n_states"), 4, "encoder_config has unknown field 'n_states'"),
        ((*ENCODER, "n_state"), "48", "n_state must be a whole number"),
        ((*ENCODER, "n_state"), 50, "even multiple of n_head"),
        ((*ENCODER, "n_head"), 0, "even multiple of n_head"),
        ((*ENCODER, "audio_vq_type"), "RVQ", "only 'GRVQ' is supported"),
        ((*ENCODER, "audio_vq_layers"), 0, "between 1 and n_layer"),
        ((*ENCODER, "audio_vq_layers"), 9, "between 1 and n_layer"),
        ((*ENCODER, "audio_vq_ds_rate"), 3, "multiple of audio_vq_ds_rate"),
        ((*ENCODER, "audio_vq_ds_rate"), 0, "multiple of audio_vq_ds_rate"),
        ((*ENCODER, "n_ctx"), 10, "more than the 10 positions"),
        ((*ENCODER, "audio_vq_pe"), 1, "must be true or false"),
        ((*ENCODER, "audio_vq_codebook_size"), 0, "must be at least 1"),
        ((*DIT, "head_dim"), 15, "must be even"),
        ((*DIT, "block_size"), 0, "block_size must be positive"),
        ((*DIT, "repeats"), -1, "must not be negative"),
        ((*DIT, "rope_theta"), 500.0, "only 10000.0 is supported"),
        ((*DIT, "mel_dim"), 64, "make them agree"),
        ((*DIT, "look_ahead_layers"), 10, "must be a list of whole numbers"),
        ((*VOCODER, "resblock_dilation_sizes"), [1, 3, 5], "must hold lists of whole numbers"),
        ((*VOCODER, "resblock_dilation_sizes"), [[1, 3]] * 3, "three positive dilations"),
        ((*VOCODER, "resblock_kernel_sizes"), [3, 7], "equally long"),
        ((*VOCODER, "resblock_kernel_sizes"), [3, 7, 10], "must be odd"),
        ((*VOCODER, "upsample_rates"), [5, 3, 2], "equally long"),
        ((*VOCODER, "upsample_kernel_sizes"), [10, 7, 4, 4], "must be even and not negative"),
        ((*VOCODER, "upsample_initial_channel"), 24, "able to halve it"),
    ],
)
def test_a_wrong_field_is_one_clear_error(path, value, message):
    data = golden_config()
    section = data
    for key in path[:-1]:
        section = section[key]
    if value is None:
        del section[path[-1]]
    else:
        section[path[-1]] = value
    with pytest.raises(ConfigError, match=message):
        Tokenizer25HzConfig.from_hf(data)


def test_official_quirks_differ_from_the_default_in_every_option():
    default, official = Quirks25Hz(), Quirks25Hz.official()
    for name, value in vars(default).items():
        assert getattr(official, name) != value, name
