"""Verbs of the official package: one text or a list, and warnings at the line that called them."""

import dataclasses
import warnings

import numpy as np
import pytest

from qtts_jax.errors import RequestError

TEXTS = ["Hello there, this is a test.", "Short one."]


@pytest.fixture(scope="module")
def model(tts):
    return tts("custom_voice", exact_reference=False)


def test_one_text_gives_a_list_of_one(model):
    waves, rate = model.generate_custom_voice("One.", "RYAN", max_new_tokens=4, seed=0)
    assert rate == model.sample_rate == 24000
    assert len(waves) == 1 and waves[0].dtype == np.float32 and len(waves[0]) == 3 * 1920


def test_lists_spread(model):
    options = {"max_new_tokens": 4, "seed": [1, 2]}
    waves, _ = model.generate_custom_voice(TEXTS[:2], ["ryan", "eric"], "auto", **options)
    alone = model.generate_custom_voice(TEXTS[1], "eric", max_new_tokens=4, seed=2)[0][0]
    np.testing.assert_allclose(waves[1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "speakers", "message"),
    [
        ([], "ryan", "list of texts is empty"),
        (["a", "b", "c"], ["ryan", "eric"], "speaker has 2 entries for 3 texts"),
    ],
)
def test_lists_that_do_not_fit_are_refused(model, texts, speakers, message):
    with pytest.raises(RequestError, match=message):
        model.generate_custom_voice(texts, speakers)


def test_cut_speech_is_reported_to_the_caller(model):
    message = r"text 2 of 2 \('Good bye.'\) was cut by max_new_tokens"
    with pytest.warns(UserWarning, match=message) as found:
        model.generate_custom_voice(["Hello.", "Good bye."], "ryan", seed=1, max_new_tokens=6)
    assert {warning.filename for warning in found} == {__file__}


def test_small_checkpoints_warn_that_they_ignore_instructions(model, monkeypatch):
    small = dataclasses.replace(model.config, size="0b6")
    monkeypatch.setattr(model._requests.checker, "config", small)
    with pytest.warns(UserWarning, match="not trained on instructions") as found:
        ignored = model.prepare_custom_voice("Hi.", "ryan", instruct="Whisper.", seed=0)
    assert [warning.filename for warning in found] == [__file__]
    plain = model.prepare_custom_voice("Hi.", "ryan", seed=0)
    np.testing.assert_array_equal(ignored.prompt.text, plain.prompt.text)


def test_without_a_speaker_a_note_says_that_the_model_picks_the_voice(model):
    with pytest.warns(UserWarning, match="no speaker is given.*name a preset such as"):
        none = model.prepare_custom_voice(TEXTS[0], None, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        empty = model.prepare_custom_voice(TEXTS[0], "", seed=1)
    np.testing.assert_array_equal(none.prompt.codec, empty.prompt.codec)  # the official layout
    assert model.default_speaker == model.config.talker.speakers[0][0]
