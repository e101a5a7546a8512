"""Layouts as data: rows, tags, dialects and what text must be known."""

import itertools

import numpy as np
import pytest

from qtts_jax.configs.presets import tts_12hz
from qtts_jax.errors import RequestError
from qtts_jax.generation.prompt import (
    SpeakerCondition,
    build_prompt,
    check_names,
    prompt_positions,
    supported_languages,
    tags_language,
    text_needed,
)

CONFIG = tts_12hz("1b7", "custom_voice")
TALKER = CONFIG.talker
ROLE, TEXT = [1, 2, 3], [10, 11, 12, 13]
CODES = np.arange(3 * 16).reshape(3, 16)


def tags(prompt):
    """The codec ids between the role and the text."""
    return prompt.codec[3 : list(prompt.codec).index(TALKER.pad_id)].tolist()


@pytest.mark.parametrize(
    ("language", "speaker", "wanted"),
    [
        ("auto", "ryan", ["nothink", 3061]),
        ("english", "ryan", [2050, 3061]),
        ("auto", "eric", [2062, 2875]),  # auto follows the dialect of the speaker
        ("chinese", "dylan", [2074, 2878]),
        ("german", "eric", [2053, 2875]),  # an explicit other language stays
    ],
)
def test_language_and_dialect_tags(language, speaker, wanted):
    prompt = build_prompt(
        CONFIG, ROLE, TEXT, voice=SpeakerCondition(speaker=speaker), language=language
    )
    first, *rest = wanted
    if first == "nothink":
        assert tags(prompt) == [2155, 2156, 2157, *rest]
    else:
        assert tags(prompt) == [2154, 2156, first, 2157, *rest]


VOICES = {
    "none": SpeakerCondition(),
    "preset": SpeakerCondition(speaker="ryan"),
    "dialect": SpeakerCondition(speaker="Eric"),
    "clone": SpeakerCondition(embedding=np.zeros(2048, np.float32)),
    "reference": SpeakerCondition(
        embedding=np.zeros(2048, np.float32), codes=CODES, text_ids=(7, 8)
    ),
    "empty reference": SpeakerCondition(
        embedding=np.zeros(2048, np.float32), codes=CODES[:0], text_ids=(7, 8)
    ),
}


@pytest.mark.parametrize("name", VOICES)
def test_planned_positions_are_those_of_the_prompt(name):
    voice = VOICES[name]
    cases = list(
        itertools.product(("auto", "english", "chinese"), (0, 1, 5), (0, 1, 4, 9), (False, True))
    )
    found = [
        len(build_prompt(CONFIG, ROLE, range(text), voice=voice, language=language,
                         instruct_ids=range(instruct), stream_text=stream))
        for language, instruct, text, stream in cases
    ]  # fmt: skip
    language, instruct, text, stream = map(np.asarray, zip(*cases, strict=True))
    planned = prompt_positions(
        role=len(ROLE),
        text=text,
        instruct=instruct,
        language_tag=np.asarray([tags_language(TALKER, each, voice.speaker) for each in language]),
        speaker=voice.speaker is not None or voice.embedding is not None,
        reference_frames=0 if voice.codes is None else len(voice.codes),
        reference_text=len(voice.text_ids),
        stream_text=stream,
    )
    np.testing.assert_array_equal(planned, found)


def test_whole_text_comes_before_bos():
    prompt = build_prompt(CONFIG, ROLE, TEXT, voice=SpeakerCondition())
    assert prompt.text[-6:].tolist() == [*TEXT, CONFIG.tts_eos_id, CONFIG.tts_pad_id]
    assert prompt.codec[-6:].tolist() == [TALKER.pad_id] * 5 + [TALKER.bos_id]
    assert len(prompt.trailing) == 0


def test_streaming_text_trails():
    prompt = build_prompt(CONFIG, ROLE, TEXT, voice=SpeakerCondition(), stream_text=True)
    assert (prompt.text[-1], prompt.codec[-1]) == (TEXT[0], TALKER.bos_id)
    assert prompt.trailing.tolist() == [*TEXT[1:], CONFIG.tts_eos_id]


@pytest.mark.parametrize(("reference_words", "trailing"), [(1, 2), (0, 1), (9, 10)])
def test_in_context_text_beside_the_reference_frames(reference_words, trailing):
    voice = SpeakerCondition(
        embedding=np.zeros(8), codes=CODES, text_ids=tuple(range(50, 50 + reference_words))
    )
    prompt = build_prompt(CONFIG, ROLE, TEXT, voice=voice, stream_text=True)
    track = [*voice.text_ids, *TEXT, CONFIG.tts_eos_id]
    assert prompt.codec[-4:].tolist() == [TALKER.bos_id, *CODES[:, 0]]
    np.testing.assert_array_equal(prompt.residual[-3:], CODES[:, 1:])
    assert prompt.text[-4:].tolist() == track[:4]
    assert prompt.trailing.tolist() == track[4:] and len(prompt.trailing) == trailing
    assert prompt.speaker.sum() == 1


def test_short_text_is_padded_to_the_reference():
    voice = SpeakerCondition(embedding=np.zeros(8), codes=CODES, text_ids=(50,))
    prompt = build_prompt(CONFIG, ROLE, TEXT[:1], voice=voice, stream_text=True)
    assert prompt.text[-4:].tolist() == [50, TEXT[0], CONFIG.tts_eos_id, CONFIG.tts_pad_id]
    assert len(prompt.trailing) == 0


@pytest.mark.parametrize(
    "voice",
    [SpeakerCondition(), SpeakerCondition(codes=CODES, text_ids=(50,), embedding=np.ones(8))],
)
def test_arriving_text_gives_the_layout_of_the_whole_text(voice):
    whole = build_prompt(CONFIG, ROLE, TEXT, voice=voice, stream_text=True)
    known = text_needed(voice)
    begun = build_prompt(
        CONFIG, ROLE, TEXT[:known], voice=voice, stream_text=True, text_complete=False
    )
    for track in ("text", "codec", "residual", "speaker"):
        np.testing.assert_array_equal(getattr(begun, track), getattr(whole, track))
    later = [*begun.trailing, *TEXT[known:], CONFIG.tts_eos_id]
    assert later == whole.trailing.tolist()


def test_unknown_names_list_the_known_ones():
    with pytest.raises(RequestError, match="unknown speaker 'bob'.*vivian"):
        build_prompt(CONFIG, ROLE, TEXT, voice=SpeakerCondition(speaker="bob"))
    with pytest.raises(RequestError, match="unknown language 'klingon'.*english"):
        check_names(TALKER, "klingon")
    with pytest.raises(RequestError, match="sichuan_dialect"):
        check_names(TALKER, "sichuan_dialect")
    assert check_names(TALKER, "English") == "english"
    assert check_names(TALKER, None) == "auto"
    assert "beijing_dialect" not in supported_languages(TALKER)
