"""One-codebook talkers: configuration alone, and the codes of the official code."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from qtts_jax.configs.presets import PRESETS, tts_12hz, tts_25hz
from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import abstract
from qtts_jax.generation.prompt import SpeakerCondition, build_prompt
from qtts_jax.generation.session import Session, generate_codes
from qtts_jax.io.checkpoint import load_params, read_config
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.text.bpe import TextTokenizer
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
from qtts_jax.tts.requests import RequestBuilder
from qtts_jax.tts.voices import CustomVoice, VoiceClone
from tests.golden_tools.cases_25hz_talker import CASES

PRESET_NAMES = [name for name in PRESETS if "25Hz-" in name]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_codes_are_the_official_ones(case, golden, converted_25hz):
    folder = converted_25hz(case.kind, case.overrides)
    config = TTSConfig.from_hf(read_config(folder))
    params = load_params(folder, abstract(TTSModel, config)[1], dtype=np.float32)
    # No audio is made.
    tokenizer = SimpleNamespace(needs_voice=False, sample_rate=24000, samples_per_frame=960)
    builder = RequestBuilder(config, TextTokenizer.from_dir(folder), tokenizer, SamplingParams())
    sampling = {
        "do_sample": False,
        "subtalker_dosample": False,
        "max_new_tokens": case.max_new_tokens,
    }
    options = {"seed": 0, "stream_text": case.stream_text, "sampling": sampling}
    if case.kind == "base":
        width, in_context = config.talker.transformer.width, case.reference > 0
        voice = VoiceClonePromptItem(
            case.codes()[:, 0] if in_context else None,
            case.embedding(width),
            not in_context,
            in_context,
            case.reference_text,
        )
        spoken = [VoiceClone(text, voice, case.language, **options) for text in case.texts]
    else:
        spoken = [CustomVoice(text, case.speaker, case.language, **options) for text in case.texts]
    requests = [builder.prepare(each) for each in spoken]
    together = generate_codes(Session(config, params, requests))
    for i, codes in enumerate(together):
        assert codes.shape[1] == 1
        np.testing.assert_array_equal(codes[:, 0], golden("talker_25hz")[f"{case.name}/codes{i}"])
    alone = generate_codes(Session(config, params, requests[-1:]))[0]
    np.testing.assert_array_equal(alone, together[-1])


def test_golden_rows_end_by_themselves_and_by_their_limit(golden):
    """The cases are of use only if both ends occur."""
    case = next(case for case in CASES if case.name == "ends")
    rows = [len(golden("talker_25hz")[f"ends/codes{i}"]) for i in range(3)]
    assert min(rows) < max(rows) == case.max_new_tokens - 1
    assert all(golden("talker_25hz")[f"{case.name}/margin"] > 1e-3 for case in CASES)


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_a_preset_is_a_talker_with_one_codebook_and_a_linear_head(name):
    config = PRESETS[name]()
    assert TTSConfig.from_hf(json.loads(json.dumps(config.to_hf()))) == config
    assert config.talker.codebooks == 1
    assert config.talker.codebook_size == 32768
    tree = abstract(TTSModel, config)[1]
    assert "code_predictor" not in tree
    width = config.talker.transformer.width
    assert tree["talker"]["codec_head"]["kernel"].size == width * (32768 + 1024)
    assert tree["talker"]["codec_embedding"]["table"].shape == (32768 + 1024, width)


@pytest.mark.parametrize("size", ["0b6", "1b7"])
def test_reserved_ids_keep_their_order_behind_the_codes(size):
    small, large = tts_12hz(size, "custom_voice").talker, tts_25hz(size, "custom_voice").talker
    shift = 32768 - 2048
    assert dict(large.speakers) == {name: i + shift for name, i in small.speakers}
    assert dict(large.languages) == {name: i + shift for name, i in small.languages}
    assert large.eos_id == small.eos_id + shift
    assert max(dict(large.speakers).values()) < large.vocab_size
    assert large.transformer == small.transformer


def test_prompts_of_one_codebook_have_no_residual_books():
    codes = np.arange(6).reshape(6, 1)
    prompt = build_prompt(
        tts_25hz("0b6", "base"),
        (1, 2, 3),
        (4, 5),
        voice=SpeakerCondition(codes=codes, text_ids=(9,)),
    )
    assert prompt.residual.shape == (len(prompt), 0)
    np.testing.assert_array_equal(prompt.codec[-6:], codes[:, 0])
