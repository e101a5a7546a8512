"""The option `draft_window` through the public verbs: same codes and audio for every value."""

import jax
import numpy as np
import pytest

from qtts_jax import CustomVoice
from qtts_jax.errors import RequestError
from qtts_jax.serving.whole import WholeSpeech

TEXTS = ["Hello there, this is a test.", "Short one.", "The thing in there is another thing."]
GREEDY = {"do_sample": False, "subtalker_dosample": False}


@pytest.fixture(scope="module")
def model(tts):
    return tts("custom_voice", exact_reference=False)


def spoken(model, window, **sampling):
    """A batch of three requests of different lengths."""
    requests = [
        model.prepare_custom_voice(
            text,
            "ryan",
            "english",
            seed=i,
            max_new_tokens=12 - 3 * i,
            draft_window=window,
            **sampling,
        )
        for i, text in enumerate(TEXTS)
    ]
    return [speech.codes for speech in model.synthesize(requests)]


@pytest.mark.parametrize(
    "sampling",
    [
        pytest.param({}, id="sampled"),
        pytest.param(GREEDY, id="greedy", marks=pytest.mark.slow),
    ],
)
def test_batches_have_the_codes_of_the_plain_loop(model, sampling):
    plain = spoken(model, None, **sampling)
    assert len({len(codes) for codes in plain}) > 1
    for want, got in zip(plain, spoken(model, 3, **sampling), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.slow
def test_streams_have_the_audio_of_the_plain_loop(model):
    options = {"seed": 3, "max_new_tokens": 9, "language": "English"}
    (whole,), _ = model.generate_custom_voice(TEXTS[0], "ryan", **options)
    stream = model.stream_custom_voice(
        TEXTS[0], "ryan", chunk_frames=(2, 3), draft_window=2, **options
    )
    np.testing.assert_allclose(np.concatenate(list(stream)), whole, rtol=0, atol=1e-5)


def test_a_window_of_one_adds_no_program(model):
    want = spoken(model, None)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        got = spoken(model, 1)
        assert compiled == []
    finally:
        jax.monitoring.clear_event_listeners()
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


def test_values_that_cannot_be(model):
    with pytest.raises(RequestError, match=r"draft_window must be 1 \(no drafts\) or more, not 0"):
        model.prepare_custom_voice(TEXTS[0], "ryan", draft_window=0)
    with pytest.raises(RequestError, match="draft_window must be a whole number"):
        model.prepare_custom_voice(TEXTS[0], "ryan", draft_window=2.5)
    with pytest.raises(RequestError, match="draft_window is 99, but a frame of this model has"):
        model.generate_custom_voice(TEXTS[0], "ryan", draft_window=99)


def test_continuous_batching_has_no_drafts(model):
    request = CustomVoice(TEXTS[1], "ryan", sampling={"draft_window": 2, "max_new_tokens": 4})
    ((_, outcome),) = WholeSpeech(model, 2).speak([(0, model.plan(request))])
    assert isinstance(outcome, RequestError)
    assert "draft_window is 2" in str(outcome) and str(outcome).endswith("leave it at 1 here.")
