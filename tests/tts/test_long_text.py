"""Long text: parts, pauses and the voice of the parts; the guard; text without words."""

import dataclasses

import numpy as np
import pytest

from qtts_jax import CustomVoice, QwenTTS
from qtts_jax.errors import TextError
from qtts_jax.tts.joining import Joiner
from qtts_jax.tts.long_text import ArrivingParts, pause_after, split_text
from qtts_jax.tts.requests import part_seed
from qtts_jax.tts.runaway_guard import frame_budget
from qtts_jax.tts.spoken_text import spoken_pieces, spoken_text

TEXT = "One two three four. Five six seven eight, nine ten eleven. Twelve thirteen."
FEW = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def model(tts):
    """A checkpoint that normalises text and was trained on short texts."""
    given = tts("custom_voice", exact_reference=False)
    config = dataclasses.replace(given.config, normalize_text=True, longest_text=30)
    parts = given.params, given.speech_tokenizer, given.text_tokenizer, given.defaults
    return QwenTTS(config, *parts)


def test_short_texts_are_one_part_and_long_ones_keep_all_words():
    assert split_text("Short. Text.", 30) == ["Short. Text."]
    parts = split_text(TEXT, 30)
    assert " ".join(parts) == TEXT and all(len(part) <= 30 for part in parts)
    assert parts[0] == "One two three four."


@pytest.mark.parametrize("size", [1, 3, 100])
def test_arriving_parts_do_not_depend_on_the_pieces(size):
    pieces = iter([TEXT[i : i + size] for i in range(0, len(TEXT), size)])
    parts = ["".join(part).strip() for part in ArrivingParts(pieces, 30)]
    assert parts == [
        "One two three four.",
        "Five six seven eight, nine ten",
        "eleven. Twelve thirteen.",
    ]


def test_pauses_follow_the_mark():
    assert pause_after("An end.") == pause_after("完了。") == 0.35
    assert pause_after("A clause,") == 0.2
    assert pause_after("by Dr.") < 0.1


def test_seeds_of_parts():
    assert part_seed(7, 0) == 7
    assert len({part_seed(7, k) for k in range(9)}) == 9 and part_seed(7, 1) == part_seed(7, 1)


def test_a_pause_counts_the_silence_of_both_parts():
    speech = np.full(1000, 0.5, np.float32)
    first = np.concatenate([speech, np.zeros(1000, np.float32)])
    second = np.concatenate([np.zeros(500, np.float32), speech])
    for size in (7, 5000):
        joiner, out = Joiner(10000), []
        for part in (first, second):
            out += [joiner.push(part[i : i + size]) for i in range(0, len(part), size)]
            joiner.pause(0.35)
        wave = np.concatenate([*out, joiner.finish()])
        assert len(wave) == 1000 + 3500 + 1000
        assert not wave[1000:4500].any()


def test_a_long_text_is_one_result_whole_or_streamed(model):
    request = CustomVoice(TEXT, "ryan", seed=3, sampling=FEW)
    (speech,) = model.generate([request])
    texts = [part.text for part in speech.parts]
    assert len(texts) > 2 and " ".join(texts) == TEXT
    assert len(speech.codes) == sum(part.frames for part in speech.parts)
    assert speech.seed == 3
    streamed = np.concatenate(list(model.stream(request)))
    np.testing.assert_allclose(streamed, speech.wave, rtol=0, atol=1e-5)
    alone = CustomVoice(texts[0], "ryan", seed=3, sampling=FEW)
    (first,) = model.generate([alone])
    np.testing.assert_array_equal(first.codes, speech.codes[: speech.parts[0].frames])
    (whole,) = model.generate([dataclasses.replace(request, split=False)])
    assert len(whole.parts) == 1


def test_text_is_normalised_where_the_checkpoint_says_so(model):
    request = CustomVoice("Dr. Lee paid $2.", "ryan", seed=1)
    spoken = model.plan(request).texts[0]
    assert spoken == "Doctor Lee paid two dollars."
    assert model.plan(dataclasses.replace(request, normalize=False)).texts[0] == request.text
    ids = model.prepare(request).prompt.text
    given = model.prepare(dataclasses.replace(request, text=spoken, normalize=False)).prompt.text
    np.testing.assert_array_equal(ids, given)


def test_the_guard_bounds_speech_that_does_not_end(model):
    (speech,) = model.generate([CustomVoice("Hi.", "ryan", seed=1)])
    budget = frame_budget("Hi.", 12.5)
    assert speech.ended or (speech.stopped_by == "guard" and len(speech.codes) == budget)
    assert model.prepare(CustomVoice("Hi.", "ryan")).budget == budget
    assert model.prepare(CustomVoice("Hi.", "ryan", sampling=FEW)).budget is None
    # 12 letters a second are slow already.
    assert all(frame_budget("a" * n, 12.5) > 3 * 12.5 * n / 12 for n in (1, 30, 240))


@pytest.mark.parametrize("text", ["\u200b", "...", "—", "\U0001f600", "  "])
def test_text_without_words_is_refused(model, text):
    for normalized in (False, True):
        with pytest.raises(TextError, match="nothing to say|empty"):
            spoken_text(text, "english", normalized)
        with pytest.raises(TextError, match="nothing to say|empty"):
            "".join(spoken_pieces(iter(text), "english", normalized))
    with pytest.raises(TextError):
        model.generate([CustomVoice(text, "ryan")])
