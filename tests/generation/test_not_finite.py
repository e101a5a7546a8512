"""Logits that are NaN or infinite end a call with one error, as in the official sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax import CustomVoice, QwenTTS
from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.errors import GenerationError
from qtts_jax.generation.prompt import speaker_id
from qtts_jax.generation.sampling import NOT_FINITE, batch_sampler, gumbel_noise, sample
from qtts_jax.layers import dispatch

FEW = {"max_new_tokens": 6}


def broken(model, change):
    """The model with changed parameters: `change(copy of the nested dict)`."""
    params = jax.tree.map(lambda leaf: leaf, model.params)
    change(params)
    parts = model.speech_tokenizer, model.text_tokenizer, model.defaults
    return QwenTTS(model.config, params, *parts)


@pytest.fixture(scope="module")
def model(tts):
    return tts("custom_voice", exact_reference=False)


@pytest.fixture(scope="module")
def one_voice_is_broken(model):
    """NaN in the embedding of the speaker vivian, as a fine-tune that diverged leaves it."""
    row = speaker_id(model.config.talker, "vivian")

    def change(params):
        table = params["talker"]["codec_embedding"]
        table["table"] = table["table"].at[row].set(jnp.nan)

    return broken(model, change)


@pytest.mark.parametrize("backend", ["plain", "interpret"])
@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, "all -inf"])
def test_a_row_that_is_not_finite_has_no_id(backend, greedy, wrong, monkeypatch):
    monkeypatch.setattr(dispatch, "override", backend)
    logits = jax.random.normal(jax.random.key(0), (3, 77)).at[0, 5].set(-jnp.inf)
    bad = logits.at[1].set(-jnp.inf) if wrong == "all -inf" else logits.at[1, 40].set(wrong)
    noise = gumbel_noise(jax.random.split(jax.random.key(1), 3), 77)
    settings = batch_sampler([SamplingParams(do_sample=not greedy)] * 3)
    finite, got = (np.asarray(sample(x, noise, *settings)) for x in (logits, bad))
    assert finite.min() >= 0
    np.testing.assert_array_equal(got, [finite[0], NOT_FINITE, finite[2]])


def test_only_the_faulty_request_of_a_batch_is_named(one_voice_is_broken):
    requests = [CustomVoice("One.", each, seed=1, sampling=FEW) for each in ("ryan", "vivian")]
    with pytest.raises(GenerationError, match=r"NaN or infinite for request 2 of 2.*half-prec"):
        one_voice_is_broken.generate(requests)
    assert len(one_voice_is_broken.generate(requests[:1])[0].codes) == 5


def test_a_stream_raises(one_voice_is_broken):
    chunks = one_voice_is_broken.stream(CustomVoice("One.", "vivian", seed=1, sampling=FEW))
    with pytest.raises(GenerationError, match="the model's logits are NaN or infinite, so"):
        next(chunks)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_logits_of_the_code_predictor_too(model, wrong):
    def change(params):
        params["code_predictor"]["heads"] = params["code_predictor"]["heads"].at[7, 3, 0].set(wrong)

    request = CustomVoice("One.", "ryan", seed=1, sampling=FEW)
    with pytest.raises(GenerationError, match="NaN or infinite"):
        broken(model, change).generate([request])
