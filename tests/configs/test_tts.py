"""Configurations: values come from the file, and faults are named."""

import copy
import hashlib
import json

import pytest

from qtts_jax.configs.presets import PRESETS, tiny, tiny_tokenizer, tokenizer_12hz, tts_12hz
from qtts_jax.configs.tokenizer_12hz import Quirks12Hz, Tokenizer12HzConfig
from qtts_jax.configs.tokenizer_25hz import TOKENIZER_25HZ, Tokenizer25HzConfig
from qtts_jax.configs.tts import TOKENIZER_12HZ, TTSConfig
from qtts_jax.errors import ConfigError
from tests.support.helpers import CHECKPOINTS, GOLDEN

TTS_PRESETS = [name for name in PRESETS if "Tokenizer" not in name]
# The 25 Hz family was never published.
RELEASED_PRESETS = [name for name in PRESETS if "25Hz" not in name]
KINDS = {
    "qwen3_tts": TTSConfig,
    TOKENIZER_12HZ: Tokenizer12HzConfig,
    TOKENIZER_25HZ: Tokenizer25HzConfig,
}


def released_config(name):
    return json.loads((GOLDEN / "configs" / f"{name}.config.json").read_text())


def read(data):
    return KINDS[data["model_type"]].from_hf(data)


@pytest.mark.parametrize("name", RELEASED_PRESETS)
def test_preset_is_the_released_file(name):
    config = PRESETS[name]()
    written = read(released_config(name))
    if "VoiceDesign" in name:
        # Whether its file lists the dialects is not certain; its presets have no speakers anyway.
        assert set(config.talker.languages) <= set(written.talker.languages)
    else:
        assert config == written


# Of the bytes of `json.dumps(config.to_hf())`: field names, their order and every value.
WRITTEN = {
    "Qwen3-TTS-12Hz-0.6B-Base": "9b13902b06a2d6db",
    "Qwen3-TTS-12Hz-0.6B-CustomVoice": "b4fbb3116233c2e6",
    "Qwen3-TTS-12Hz-1.7B-Base": "a171bb28dca2a1dd",
    "Qwen3-TTS-12Hz-1.7B-CustomVoice": "2d6dabb47988c79f",
    "Qwen3-TTS-12Hz-1.7B-VoiceDesign": "7106f5fc8661e6dc",
    "Qwen3-TTS-Tokenizer-12Hz": "9d67466228458dfc",
    "Qwen3-TTS-Tokenizer-25Hz": "8419beab6ff0d610",
    "Qwen3-TTS-25Hz-0.6B": "b59206b8811f8856",
    "Qwen3-TTS-25Hz-0.6B-CustomVoice": "4466ef97b1aa95c4",
    "Qwen3-TTS-25Hz-1.7B": "8b75a6b7bb977545",
    "Qwen3-TTS-25Hz-1.7B-CustomVoice": "c8156a48f1c6b365",
}


@pytest.mark.parametrize("name", PRESETS)
def test_to_hf_writes_the_same_bytes(name):
    written = json.dumps(PRESETS[name]().to_hf()).encode()
    assert hashlib.sha256(written).hexdigest().startswith(WRITTEN[name])


@pytest.mark.parametrize("name", PRESETS)
def test_to_hf_reads_back(name):
    config = PRESETS[name]()
    assert read(json.loads(json.dumps(config.to_hf()))) == config


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_to_hf_keeps_every_value_of_a_file(name):
    def compare(ours, theirs, where=""):
        for key, value in theirs.items():
            if isinstance(value, dict) and key in ours:
                compare(ours[key], value, f"{where}{key}.")
            elif key in ours:
                assert ours[key] == value, where + key

    for folder in (GOLDEN / "ckpt" / name, GOLDEN / "ckpt" / name / "speech_tokenizer"):
        data = json.loads((folder / "config.json").read_text())
        compare(read(data).to_hf(), data)


def test_configurations_are_hashable_and_shrink():
    assert hash(tiny(tts_12hz("1b7", "base"))) != hash(tts_12hz("1b7", "base"))
    small = tiny_tokenizer(tokenizer_12hz())
    assert small.samples_per_frame == tokenizer_12hz().samples_per_frame == 1920


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("talker_config", "hidden_size"), None, "lacks 'hidden_size'"),
        (("talker_config", "hidden_sizes"), 4, "unknown field 'hidden_sizes'"),
        (("talker_config", "hidden_size"), "64", "must be a whole number"),
        (("talker_config", "hidden_act"), "gelu", "only 'silu' is supported"),
        (("talker_config", "num_key_value_heads"), 3, "cannot share 3 key/value heads"),
        (("talker_config", "codec_eos_token_id"), -4, "must not be negative"),
        (("talker_config", "spk_is_dialect", "eric"), "klingon", "codec_language_id lacks"),
        (("talker_config", "code_predictor_config", "num_code_groups"), 4, "must be equal"),
        (("talker_config", "num_key_value_heads"), 0, "must be at least 1, but is 0"),
        (("talker_config", "num_attention_heads"), 0, "must be at least 1, but is 0"),
        (("talker_config", "num_hidden_layers"), 0, "must be at least 1, but is 0"),
        (("talker_config", "num_code_groups"), 0, "must be at least 1, but is 0"),
        (("talker_config", "vocab_size"), 1024, "must be at least 1025, but is 1024"),
        (("talker_config", "code_predictor_config", "vocab_size"), 0, "must be at least 1"),
        (("talker_config", "rope_scaling", "type"), "yarn", "type 'yarn' is not supported"),
        (("talker_config", "rope_scaling", "mrope_section"), 5, "must be a list of whole numbers"),
        (("tts_model_type",), "singing", "must be one of base, custom_voice, voice_design"),
        (
            ("qtts_jax_further_types",),
            ["base", "song"],
            "may hold base, custom_voice, voice_design",
        ),
        (("qtts_jax_further_types",), ["base", "custom_voice"], "names a type twice"),
        (("model_type",), "qwen2", "only 'qwen3_tts' is supported"),
        (("im_start_token_id",), True, "must be a whole number"),
    ],
)
def test_a_wrong_field_is_one_clear_error(path, value, message):
    data = copy.deepcopy(released_config("Qwen3-TTS-12Hz-1.7B-CustomVoice"))
    section = data
    for key in path[:-1]:
        section = section[key]
    if value is None:
        del section[path[-1]]
    else:
        section[path[-1]] = value
    with pytest.raises(ConfigError, match=message):
        TTSConfig.from_hf(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("decode_upsample_rate",), 1000, "stage factors multiply to 1920"),
        (("encoder_valid_num_quantizers",), 99, "more than the 32 codebooks"),
        (("encoder_config", "pad_mode"), "reflect", "only 'constant' is supported"),
        (("encoder_config", "_frame_rate"), 7.0, "whole factor"),
        (("encoder_config", "_frame_rate"), 6.25, "fixed stride of 2"),
        (("encoder_config", "_frame_rate"), 0, "_frame_rate must be positive"),
        (("encoder_config", "codebook_dim"), 128, "must be equal"),
        (("encoder_config", "sliding_window"), None, "lacks 'sliding_window'"),
        (("decoder_config", "sliding_window"), None, "lacks 'sliding_window'"),
        (("encoder_valid_num_quantizers",), 0, "must be at least 1, but is 0"),
        (("encoder_config", "num_attention_heads"), 0, "must be at least 1, but is 0"),
        (("encoder_config", "upsampling_ratios"), [8, 6, 5, 0], "must hold numbers from 1 on"),
        (("encoder_config", "compress"), 0, "must be at least 1, but is 0"),
        (("encoder_config", "compress"), 65, "more than the 64 num_filters"),
        (("encoder_config", "audio_channels"), 2, "only 1 is supported"),
        (("encoder_config", "residual_kernel_size"), 0, "must be at least 1, but is 0"),
        (("encoder_config", "num_semantic_quantizers"), 33, "between 1 and num_quantizers"),
        (("decoder_config", "num_attention_heads"), 0, "must be at least 1, but is 0"),
        (("decoder_config", "num_quantizers"), 0, "must be at least 1, but is 0"),
        (("decoder_config", "upsample_rates"), [8, 5, 4, 0], "must hold numbers from 1 on"),
    ],
)
def test_a_wrong_tokenizer_field_is_one_clear_error(path, value, message):
    data = copy.deepcopy(released_config("Qwen3-TTS-Tokenizer-12Hz"))
    section = data
    for key in path[:-1]:
        section = section[key]
    if value is None:
        del section[path[-1]]
    else:
        section[path[-1]] = value
    with pytest.raises(ConfigError, match=message):
        Tokenizer12HzConfig.from_hf(data)


@pytest.mark.parametrize("absent", [False, True])
def test_a_frame_rate_that_was_never_given_follows_from_the_strides(absent):
    """The official class writes null for it."""
    data = released_config("Qwen3-TTS-Tokenizer-12Hz")
    want = Tokenizer12HzConfig.from_hf(data)
    if absent:
        del data["encoder_config"]["_frame_rate"]
    else:
        data["encoder_config"] |= {"_frame_rate": None, "frame_rate": 7}  # the latter is not read
    assert Tokenizer12HzConfig.from_hf(data) == want


def test_the_official_decoder_has_one_semantic_book_whatever_the_file_says():
    data = released_config("Qwen3-TTS-Tokenizer-12Hz")
    want = Tokenizer12HzConfig.from_hf(data)
    data["decoder_config"]["num_semantic_quantizers"] = 2
    assert Tokenizer12HzConfig.from_hf(data) == want


def test_a_window_of_null_is_no_window():
    data = released_config("Qwen3-TTS-Tokenizer-12Hz")
    data["encoder_config"]["sliding_window"] = None
    config = Tokenizer12HzConfig.from_hf(data)
    assert config.encoder.transformer.window is None
    assert Tokenizer12HzConfig.from_hf(config.to_hf()) == config


def test_the_older_name_of_the_rotation_type_counts_where_both_are_given():
    data = released_config("Qwen3-TTS-12Hz-1.7B-CustomVoice")
    want = TTSConfig.from_hf(data)
    data["talker_config"]["rope_scaling"] |= {"rope_type": "yarn", "type": "default"}
    assert TTSConfig.from_hf(data) == want


def test_an_absent_head_width_is_128_in_the_predictor_and_a_quotient_in_the_talker():
    data = released_config("Qwen3-TTS-12Hz-1.7B-CustomVoice")
    for section in (data["talker_config"], data["talker_config"]["code_predictor_config"]):
        section |= {"hidden_size": 512, "num_attention_heads": 16}
        del section["head_dim"]
    talker = TTSConfig.from_hf(data).talker
    assert talker.transformer.head_dim == 32
    assert talker.code_predictor.transformer.head_dim == 128


def test_the_form_of_transformers_5_is_read():
    data = released_config("Qwen3-TTS-12Hz-1.7B-CustomVoice")
    want = TTSConfig.from_hf(data)
    talker = data["talker_config"]
    predictor = talker["code_predictor_config"]
    scaling = talker.pop("rope_scaling")
    talker["rope_parameters"] = scaling | {"rope_theta": talker.pop("rope_theta")}
    predictor.pop("rope_scaling", None)
    theta = predictor.pop("rope_theta")
    predictor["rope_parameters"] = {"rope_theta": theta, "rope_type": "default"}
    assert TTSConfig.from_hf(data) == want
    predictor["rope_parameters"]["rope_type"] = "yarn"
    with pytest.raises(ConfigError, match="rope_scaling is"):
        TTSConfig.from_hf(data)
    predictor["rope_parameters"]["rope_type"] = "default"
    talker["rope_theta"] = 5.0
    with pytest.raises(ConfigError, match="remove one of them"):
        TTSConfig.from_hf(data)


def test_null_and_inactive_fields_pass():
    data = released_config("Qwen3-TTS-12Hz-1.7B-CustomVoice")
    want = TTSConfig.from_hf(data)
    for section in (data["talker_config"], data["talker_config"]["code_predictor_config"]):
        section |= {"use_sliding_window": False, "sliding_window": 4096, "attention_bias": None}
        section |= {"layer_types": None, "quantization_config": None}
    assert TTSConfig.from_hf(data) == want
    data["talker_config"]["use_sliding_window"] = True
    with pytest.raises(ConfigError, match="use_sliding_window is True"):
        TTSConfig.from_hf(data)


def test_base_without_speaker_encoder_is_refused():
    data = released_config("Qwen3-TTS-12Hz-0.6B-Base")
    del data["speaker_encoder_config"]
    with pytest.raises(ConfigError, match="lacks speaker_encoder_config"):
        TTSConfig.from_hf(data)


def test_official_quirks_differ_from_the_default_in_every_named_option():
    default, official = Quirks12Hz(), Quirks12Hz.official()
    assert not default.encoder_window and not official.encoder_window
    assert not default.pad_to_longest and official.pad_to_longest
    assert default.decode_chunk is None and official.decode_chunk == 300
    assert not default.proportional_cut and official.proportional_cut


def test_what_a_checkpoint_says_about_its_text_is_kept():
    data = released_config("Qwen3-TTS-12Hz-1.7B-CustomVoice")
    config = TTSConfig.from_hf(data)
    assert not config.normalize_text and not config.named_letters and config.longest_text is None
    assert not any("qtts_jax" in name for name in config.to_hf())
    own = {
        "qtts_jax_normalize_text": True,
        "qtts_jax_named_letters": True,
        "qtts_jax_longest_text": 240,
    }
    config = TTSConfig.from_hf({**data, **own})
    assert config.normalize_text and config.named_letters and config.longest_text == 240
    assert own.items() <= config.to_hf().items()
