"""What each voice reads: turns, drawn voices, speeds, and job files that only grow."""

import json
from collections import Counter

import pytest

from experiments.corpus.manifest import synthetic_row
from experiments.corpus.plan import (
    ACCENTED_VOICES,
    DRAWN_VOICES,
    OFTEN,
    PIPER_SHIFTS,
    TURNS,
    UNSEEN_CLIPS,
    VOICES,
    chosen_jobs,
    for_hours,
    job,
    kokoro_jobs,
    piper_jobs,
    read_jobs,
    speed_of,
    voice_round,
    write_jobs,
)
from experiments.corpus.split import UNSEEN_VOICES, corpus_split
from qtts_jax.data.splits import TEST
from tests.support.corpus_texts import sentences, spell, texts


def test_voices_take_turns_and_unseen_ones_read_test_sentences():
    jobs = list(kokoro_jobs(sentences(1000)))
    assert [each["voice"] for each in jobs[: len(VOICES)]] == list(VOICES)
    assert len({each["id"] for each in jobs}) == len(jobs)
    unseen = [each for each in jobs if each["voice"] in UNSEEN_VOICES]
    assert unseen and all(corpus_split(each["text"]) == TEST for each in unseen)
    assert len(unseen) <= UNSEEN_CLIPS * len(UNSEEN_VOICES)


def test_chosen_voices_read_short_sentences_in_turn():
    some = sentences(1000)
    longest = sorted(len(each.text) for each in some)[len(some) // 2]
    jobs = list(chosen_jobs(some, ["af_heart", "bf_emma"], longest))
    assert [each["voice"] for each in jobs[:4]] == ["af_heart", "bf_emma"] * 2
    assert [each["text"] for each in jobs] == [s.text for s in some if len(s.text) <= longest]


def test_with_more_hours_some_voices_speak_often_and_those_of_other_languages_too(monkeypatch):
    monkeypatch.setattr("experiments.corpus.plan.EVEN_ROUNDS", 2)
    voices = [each["voice"] for each in kokoro_jobs(sentences(1000))]
    later, turns = voices[len(VOICES) * 2 :], voice_round(TURNS)
    assert len(later) > 500 and later == turns[: len(later)]
    counts = Counter(turns)
    assert set(counts) == {*VOICES, *ACCENTED_VOICES, *DRAWN_VOICES} - UNSEEN_VOICES
    assert {counts[voice] for voice in DRAWN_VOICES} == {1}
    assert {n for voice, n in counts.items() if voice not in (*OFTEN, *DRAWN_VOICES)} == {4}
    # Spread over the round, so that any part of it has them.
    half = Counter(turns[: len(turns) // 2])
    assert abs(half["af_heart"] - OFTEN["af_heart"] / 2) <= 1
    shares = {voice: round(100 * counts[voice] / len(turns)) for voice in OFTEN}
    assert shares == {"af_heart": 10, "am_michael": 4, "bf_emma": 4, "bm_george": 4}
    assert not any(voice.startswith("i") for voice in counts)


def test_drawn_voices_are_of_both_sexes_and_accents():
    assert len(set(DRAWN_VOICES)) == len(DRAWN_VOICES) == 800
    counts = Counter(voice[:2] for voice in DRAWN_VOICES)
    assert counts == {"af": 267, "bf": 133, "am": 267, "bm": 133}


@pytest.mark.parametrize("voice", ["af~001", "bm~002"])
def test_a_drawn_voice_is_derived_and_has_a_sex(voice):
    planned = job("kokoro", voice, sentences(1)[0], "kokoro-js")
    row = synthetic_row(planned)
    assert row["derived"] and row["speaker"] == voice and voice in row["audio"]
    assert row["sex"] == {"f": "female", "m": "male"}[voice[1]]
    assert not synthetic_row(planned | {"voice": "bf_emma"})["derived"]


def test_unseen_voices_are_two_women_and_two_men():
    assert sorted(voice[1] for voice in UNSEEN_VOICES) == ["f", "f", "m", "m"]
    assert set(VOICES) > UNSEEN_VOICES and len(VOICES) == 28


def test_more_hours_only_add_jobs(tmp_path):
    pool, asked = sentences(), []

    def tokens(jobs):
        asked.extend(each["id"] for each in jobs)
        return spell(jobs)

    few = write_jobs(tmp_path / "jobs.jsonl", for_hours(piper_jobs(pool), 0.01), tokens)
    many = write_jobs(tmp_path / "jobs.jsonl", for_hours(piper_jobs(pool), 0.03), tokens)
    assert 0 < len(few) < len(many) and many[: len(few)] == few
    assert all(each["tokens"] and each["anchors"] for each in many)
    assert sorted(asked) == sorted(each["id"] for each in many)
    assert read_jobs(tmp_path / "jobs.jsonl") == many


def test_text_with_no_or_too_many_phonemes_is_left_out(tmp_path):
    jobs = list(for_hours(kokoro_jobs(sentences()), 0.005))
    tokens = [{"tokens": ids} for ids in ([], [1] * 501, *[[1]] * (len(jobs) - 2))]
    assert len(write_jobs(tmp_path / "j.jsonl", jobs, lambda group: tokens)) == len(jobs) - 2


def test_two_of_five_sentences_are_in_derived_voices_of_their_pitch():
    jobs = list(piper_jobs(sentences(1000)))
    assert jobs == list(piper_jobs(sentences(1000)))
    shifts = [int(each["voice"].removeprefix("joe") or 0) for each in jobs]
    assert 0.35 < sum(shift != 0 for shift in shifts) / len(jobs) < 0.45
    assert set(shifts) == {0, *PIPER_SHIFTS}
    for each, shift in zip(jobs, shifts, strict=True):
        assert each["pitch"] == pytest.approx(2 ** (shift / 12), abs=1e-4)
        assert each["id"].startswith(f"piper-{each['voice']}-")


def test_speeds_are_normal_for_half_of_the_clips():
    speeds = [speed_of(text, "af_heart") for text in texts(800)]
    assert 0.4 < speeds.count(1.0) / len(speeds) < 0.6
    assert min(speeds) >= 0.8 and max(speeds) <= 1.25


def test_jobs_of_before_the_anchors_are_made_anew(tmp_path):
    path = tmp_path / "jobs.jsonl"
    old = {"id": "a", "engine": "piper", "tokens": [1]}
    path.write_text(json.dumps(old) + "\n")
    new = {"tokens": [2], "anchors": []}
    for fields, expected in ((("tokens",), [1]), (("tokens", "anchors"), [2])):
        written = write_jobs(
            path, [{"id": "a", "engine": "piper"}], lambda jobs: [new for _ in jobs], fields
        )
        assert written[0]["tokens"] == expected
