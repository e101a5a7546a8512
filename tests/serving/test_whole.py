"""Requests of several parts, spoken whole by an engine that refills its rows."""

import dataclasses

import numpy as np
import pytest

from qtts_jax import CustomVoice, QwenTTS
from qtts_jax.serving.whole import WholeSpeech

TEXT = "One two three four. Five six seven eight, nine ten eleven. Twelve thirteen."


@pytest.fixture(scope="module")
def model(tts):
    """A checkpoint that was trained on short texts."""
    given = tts("custom_voice", exact_reference=False)
    config = dataclasses.replace(given.config, longest_text=30)
    return QwenTTS(
        config, given.params, given.speech_tokenizer, given.text_tokenizer, given.defaults
    )


def plans(model, texts):
    for i, text in enumerate(texts):
        request = CustomVoice(text, "ryan", seed=i, sampling={"max_new_tokens": 4 + 2 * i})
        yield i, model.plan(request)


def test_parts_of_many_requests_share_the_rows(model):
    texts = ["Short.", TEXT, "Another.", TEXT + " And more."]
    wanted = model.speak([plan for _, plan in plans(model, texts)])
    got = dict(WholeSpeech(model, 4).speak(plans(model, texts)))
    assert sorted(got) == [0, 1, 2, 3] and len(wanted[1].parts) > 2
    for i, speech in enumerate(wanted):
        np.testing.assert_array_equal(got[i].codes, speech.codes)
        np.testing.assert_allclose(got[i].wave, speech.wave, atol=1e-5)
        assert [part.text for part in got[i].parts] == [part.text for part in speech.parts]
        assert (got[i].seed, got[i].stopped_by) == (speech.seed, speech.stopped_by)


def test_parts_carry_the_voice_of_the_first(model, monkeypatch):
    voices, prepared = [], []
    monkeypatch.setattr(model, "voice_of", lambda wave, decoder_voice: voices.append(len(wave)))
    (_, plan), other = plans(model, [TEXT, "Another."])

    def prepare(k, voice):
        prepared.append((k, len(voices)))
        return plan.prepare(k, voice)

    plan_without_voice = dataclasses.replace(plan, carries_voice=True, prepare=prepare)
    got = dict(WholeSpeech(model, 4).speak([(0, plan_without_voice), other]))
    assert sorted(got) == [0, 1] and len(voices) == 1
    assert prepared == [(k, int(k > 0)) for k in range(len(plan.texts))]


def test_a_part_that_cannot_be_prepared_costs_its_request_alone(model):
    (_, plan), other = plans(model, [TEXT, "Another."])

    def prepare(k, voice):
        if k == 1:
            raise ValueError("no such part")
        return plan.prepare(k, voice)

    faulty = dataclasses.replace(plan, prepare=prepare)
    got = dict(WholeSpeech(model, 4).speak([(0, faulty), other]))
    assert isinstance(got[0], ValueError) and len(got[1].codes)


def test_nothing_is_compiled_for_no_request(model):
    assert list(WholeSpeech(model, 4).speak([])) == []
