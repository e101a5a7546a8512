"""References of cloned voices: which are used, how, and which are refused."""

import dataclasses

import numpy as np
import pytest

from qtts_jax.errors import AudioError, RequestError
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem


@pytest.fixture(scope="module")
def base(tts):
    return tts("base", exact_reference=False)


@pytest.fixture(scope="module")
def recording(detweights):
    return detweights.wave(7, "recording", 9000, 24000), 24000


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, RequestError, "needs a reference"),
        ({"ref_audio": (np.zeros(9000, np.float32), 24000)}, RequestError, "ref_text is missing"),
        ({"ref_audio": "no/such.wav", "x_vector_only_mode": True}, AudioError, "such.wav"),
        ({"ref_audio": (np.zeros(0), 24000), "x_vector_only_mode": True}, AudioError, "empty"),
        ({"ref_audio": (np.zeros(100), 24000), "x_vector_only_mode": True}, AudioError, "short"),
        (
            {"ref_audio": (np.full(9000, np.nan), 24000), "x_vector_only_mode": True},
            AudioError,
            "NaN",
        ),
        (
            {"ref_audio": (np.zeros(9000, np.float32), 24000), "x_vector_only_mode": True},
            AudioError,
            "ref_audio 0 is silent",
        ),
        (
            {"ref_audio": "http://127.0.0.1:9/a.wav", "x_vector_only_mode": True},
            AudioError,
            "is a URL, which is not accepted here",
        ),
        ({"voice_clone_prompt": "someone"}, RequestError, "create_voice_clone_prompt"),
    ],
)
def test_a_bad_reference_is_one_clear_error(base, options, error, message):
    with pytest.raises(error, match=message):
        base.generate_voice_clone("Hi.", **options)


def test_a_url_is_fetched_only_where_it_is_allowed(base):
    with pytest.raises(AudioError, match="ref_audio 0 cannot be fetched from http://127"):
        base.create_voice_clone_prompt("http://127.0.0.1:9/a.wav", "Hi.", allow_url=True)


def test_a_reference_of_less_than_a_frame_has_one_code(base, recording):
    wave, rate = recording
    item = base.create_voice_clone_prompt((wave[:1900], rate), "Hi.")[0]
    assert item.ref_code.shape == (1, base.speech_tokenizer.codebooks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ref_spk_embedding": np.zeros(95)}, "x-vector of 96 finite numbers, but its shape is"),
        ({"ref_spk_embedding": np.full(96, np.nan)}, "x-vector of 96 finite numbers"),
        ({"ref_spk_embedding": None}, "ref_spk_embedding is missing"),
        ({"ref_spk_embedding": "ada"}, "ref_spk_embedding must be an array of numbers"),
        ({"ref_code": [[1], [1, 2]]}, "ref_code must be an array of numbers"),
        ({"ref_code": np.zeros((5, 15), int)}, r"shape \[frames, 16\], not \[5, 15\]"),
        ({"ref_code": np.zeros(5, int)}, r"shape \[frames, 16\], not \[5\]"),
        ({"ref_code": np.zeros((0, 16), int)}, "codes are empty"),
        ({"ref_code": np.zeros((5, 16))}, "codes must be integers"),
        ({"ref_code": np.full((5, 16), 64)}, "codes must lie in 0 ... 63, but one is 64"),
        ({"ref_code": np.full((5, 16), -1)}, "codes must lie in 0 ... 63, but one is -1"),
        ({"ref_code": None}, "ref_code is missing"),
        ({"ref_text": ""}, "ref_text is missing"),
        ({"x_vector_only_mode": True}, "must be opposites, but both are True"),
        ({"icl_mode": False}, "must be opposites, but both are False"),
    ],
)
def test_a_voice_that_does_not_fit_is_one_clear_error(base, change, message):
    codes = np.zeros((5, 16), np.int64)
    item = VoiceClonePromptItem(codes, np.zeros(96, np.float32), False, True, "Words.")
    assert base.prepare_voice_clone("Hi.", item, seed=1).reference.shape == (5, 16)
    with pytest.raises(RequestError, match=message):
        base.prepare_voice_clone("Hi.", dataclasses.replace(item, **change), seed=1)


def test_codes_of_a_voice_are_used_in_context_alone(base):
    """As in the official `generate`, which depends on `icl_mode`."""
    vector = np.linspace(-1, 1, 96, dtype=np.float32)
    given = VoiceClonePromptItem(np.zeros((5, 16), int), vector[None], True, False, "Words.")
    plain = VoiceClonePromptItem(None, vector, True, False)
    one, other = (base.prepare_voice_clone("Hi.", item, seed=1) for item in (given, plain))
    assert one.reference is None
    np.testing.assert_array_equal(one.prompt.codec, other.prompt.codec)
    np.testing.assert_array_equal(one.prompt.embedding, vector)


def test_stereo_and_other_rates_are_used(base, recording):
    wave, rate = recording
    stereo = np.stack([wave, wave], axis=1)
    np.testing.assert_allclose(
        base.embed_speaker((stereo, rate)), base.embed_speaker(recording), atol=1e-6
    )
    assert base.embed_speaker((wave, 16000)).shape == base.embed_speaker(recording).shape
