"""Which clips are taken, how they are spoken or coded, and what is compared with what."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from qtts_jax.data import prepare
from qtts_jax.errors import DataError, EvaluationError, RequestError
from qtts_jax.evaluation.sample import load_mono_16k
from qtts_jax.evaluation.tasks.clips import choose
from qtts_jax.evaluation.tasks.clone import clone_rows
from qtts_jax.evaluation.tasks.codec import codec_rows
from qtts_jax.evaluation.tasks.description import (
    Pair,
    default_pairs,
    description_rows,
    read_pairs,
)
from qtts_jax.evaluation.tasks.speaking import Speaking
from qtts_jax.evaluation.tasks.speed import speed_rows
from qtts_jax.evaluation.tasks.tts import tts_rows
from tests.support.fake_metrics import FRAME, RATE, TTS, Embedder, panel, write_manifest

LOW, HIGH = 120, 240


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    real, made = {"synthetic": False, "split": "test"}, {"synthetic": True, "split": "test"}
    clips = [
        ("ann", "one two", LOW, real),
        ("ann", "three four", LOW, real),
        ("ann", "five six", LOW, real | {"split": "train"}),
        ("bob", "seven eight", HIGH, made | {"instruction": "A man."}),
        ("bob", "nine ten", HIGH, made),
        ("cid", "eleven", 180, made),
    ]
    return write_manifest(tmp_path_factory.mktemp("corpus"), clips)


@pytest.fixture(scope="module")
def clips(manifest):
    return choose(manifest, min_seconds=0.5)


def test_speakers_take_turns(manifest):
    def names(**options):
        return [(c.speaker, c.text) for c in choose(manifest, min_seconds=0.5, **options)]

    assert [s for s, _ in names()] == ["ann", "bob", "cid", "ann", "bob"]
    assert [s for s, _ in names(count=3)] == ["ann", "bob", "cid"]
    assert names(speech="real") == [("ann", "one two"), ("ann", "three four")]
    assert len(names(split="all")) == 6
    assert {s for s, _ in names(speech="synthetic", language="english")} == {"bob", "cid"}
    # Of ann there is a clip to train on.
    assert {s for s, _ in names(unseen=True)} == {"bob", "cid"}


def test_a_manifest_of_held_out_clips_says_who_is_unseen(tmp_path):
    clips = [
        ("ann", "one", LOW, {"split": "test", "unseen_speaker": False}),
        ("bob", "two", HIGH, {"split": "test", "unseen_speaker": True}),
        ("cid", "three", 180, {"split": "test"}),
    ]
    chosen = choose(write_manifest(tmp_path, clips), min_seconds=0.1, unseen=True)
    assert [c.speaker for c in chosen] == ["bob", "cid"]
    # The training split counts, whatever the other marks.
    clips.append(("bob", "four", LOW, {"split": "train", "unseen_speaker": True}))
    chosen = choose(write_manifest(tmp_path, clips), min_seconds=0.1, unseen=True)
    assert [c.speaker for c in chosen] == ["cid"]
    clips.append(("dan", "five", LOW, {"split": "test", "unseen_speaker": "false"}))
    with pytest.raises(DataError, match="line 5 .*unseen_speaker 'false'; write true or false"):
        choose(write_manifest(tmp_path, clips), min_seconds=0.1, unseen=True)


def test_without_splits_the_test_clips_are_those_that_training_leaves_out(tmp_path):
    manifest = write_manifest(tmp_path, [("ann", f"text {i}", LOW, {}) for i in range(60)])
    dataset = prepare(manifest, tmp_path / "set", progress=False)
    left_out = {record.text for record in dataset.records if record.split == "test"}
    assert 0 < len(left_out) < 10
    assert {c.text for c in choose(manifest, min_seconds=0.1)} == left_out
    with pytest.raises(EvaluationError, match="of unseen speakers"):
        choose(manifest, min_seconds=0.1, unseen=True)


def test_no_clip_left_is_one_sentence(manifest):
    with pytest.raises(EvaluationError, match="no real clips.*in italian"):
        choose(manifest, speech="real", language="italian")
    with pytest.raises(EvaluationError, match="at least 9 s"):
        choose(manifest, min_seconds=9)
    with pytest.raises(DataError, match="cannot be read"):
        choose(manifest.parent / "none.jsonl")


class Halving:
    """A tokenizer that halves the amplitude and fills the last frame."""

    needs_voice = False
    codebooks, sample_rate, samples_per_frame = 2, RATE, FRAME
    config = SimpleNamespace(encoder=SimpleNamespace(entries=16))

    def encode(self, audios):
        self._wave = load_mono_16k(audios[0])
        return [np.tile([[1, 2]], (-(-len(self._wave) // FRAME), 1))]

    def decode(self, codes):
        return [np.pad(0.5 * self._wave, (0, len(codes) * FRAME - len(self._wave)))], RATE


def test_codec_compares_each_clip_with_itself(clips):
    def gain(sample):
        if sample.aligned is None:
            return {}
        assert sample.wave.shape == sample.aligned.shape
        return {"stoi": (float(sample.wave @ sample.aligned / (sample.aligned**2).sum()), 1)}

    def surplus(sample):
        known = sample.seconds is not None
        return {"duration": (sample.seconds - sample.expected_seconds, 1)} if known else {}

    judges = panel(gain=gain, surplus=surplus)
    original, row = codec_rows(Halving(), clips, judges, opus=())
    found = row.estimates()
    assert (original.name, row.name) == ("original", "tokenizer")
    assert set(original.estimates()) == {"wer", "cer", "repetition"}
    assert found["stoi"].value == pytest.approx(0.5)
    # A clip of 1 s fills 13 frames of 0.08 s.
    assert found["duration"].value == pytest.approx(0.04)
    assert found["wer_rise"].value == 0
    assert found["bit_rate"].value == pytest.approx(2 * 4 * 12.5)
    assert row.details["codebook_use"] == [1 / 16, 1 / 16]
    assert row.details["frames"] == 13 * len(clips)


def test_what_opus_cannot_do_is_refused_before_anything_is_judged(clips):
    for bits in (6, 510_000):
        with pytest.raises(EvaluationError, match=f"Opus cannot take {bits} bits a second"):
            codec_rows(None, clips, None, opus=(6000, bits))


def test_words_lost_by_the_codec_are_counted_against_the_original(clips):
    def half_deaf(sample):
        return {"wer": (0.0 if sample.aligned is None else 1.0, 2)}

    _, row = codec_rows(Halving(), clips, panel(asr=half_deaf), opus=())
    assert row.estimates()["wer_rise"].value == 0.5


def test_preset_voices_take_turns_and_endless_speech_is_counted(clips):
    tts = TTS("custom_voice", frames=lambda speaker: 12 if speaker == "ann" else 999)
    recordings, row = tts_rows(tts, clips, panel(), Speaking(seed=5, seconds=2.0, batch=2))
    assert [voice for _, voice, _, _ in tts.requests] == ["ann", "bob", "ann", "bob", "ann"]
    assert [o["seed"] for *_, o in tts.requests] == [5, 6, 7, 8, 9]
    assert {language for _, _, language, _ in tts.requests} == {"english"}
    assert row.estimates()["no_eos"].value == pytest.approx(2 / 5)
    assert "no_eos" not in recordings.estimates()
    assert recordings.clips.keys() == row.clips.keys()


def test_described_voices_take_the_instruction_of_each_clip(clips):
    tts = TTS("voice_design")
    tts_rows(tts, clips, panel(), Speaking())
    assert [words for _, words, _, _ in tts.requests] == [None, "A man.", None, None, None]
    tts = TTS("voice_design")
    tts_rows(tts, clips, panel(), Speaking(), instruct="A woman.")
    assert {words for _, words, _, _ in tts.requests} == {"A woman."}


def test_a_base_checkpoint_needs_voices_for_texts(clips):
    with pytest.raises(RequestError, match="--ref-audio"):
        tts_rows(TTS("voice_clone"), clips, panel(), Speaking())
    tts = TTS("voice_clone")
    tts_rows(tts, clips, panel(), Speaking(), voices=["a.wav", "b.wav"])
    assert [v for _, v, _, _ in tts.requests][:3] == ["a.wav", "b.wav", "a.wav"]


def test_recordings_to_speak_like_are_used_or_refused(clips):
    tts = TTS("custom_voice")
    for task in (partial(tts_rows, panel=panel()), speed_rows):
        with pytest.raises(RequestError, match="does not speak like recordings"):
            task(tts, clips, speaking=Speaking(), voices=["a.wav"])
    tts.modes = ("custom_voice", "voice_clone")
    tts_rows(tts, clips, panel(), Speaking(), voices=["a.wav"])
    assert {v for _, v, _, _ in tts.requests} == {"a.wav"}


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_the_longest_utterance_is_a_length(seconds):
    with pytest.raises(EvaluationError, match="longest utterance cannot be"):
        Speaking(seconds=seconds)


def test_clones_say_another_text_and_are_held_against_other_speakers(clips):
    # A cloner that gets ann right and gives everybody else her voice, too.
    tts = TTS("voice_clone", pitch=lambda item: LOW)
    samples = []

    def judge(sample):
        samples.append(sample)
        return {}

    recordings, row = clone_rows(tts, clips, panel(judge=judge), Speaking(), Embedder())
    # cid has one clip only and is left out.
    references = [v.rsplit("/", 1)[1] for _, v, _, _ in tts.requests]
    assert references == ["0.wav", "3.wav", "1.wav", "4.wav"]
    assert [text for text, *_ in tts.requests] == [
        "three four",
        "nine ten",
        "one two",
        "seven eight",
    ]
    assert recordings.estimates()["own_nearest"].value == 1
    assert row.estimates()["own_nearest"].value == 0.5
    assert recordings.details["speakers"] == 2
    angle = (HIGH - LOW) / 200
    assert recordings.details["best_other_speaker_pair"] == pytest.approx(np.cos(angle), abs=0.01)
    assert all(s.voice is not None for s in samples)
    assert samples[-1].expected_seconds == pytest.approx(1.0)


def test_clones_without_a_judge_of_speakers(clips):
    recordings, row = clone_rows(TTS("voice_clone"), clips, panel(), Speaking(), None)
    assert recordings.details == {"speakers": 2} and "own_nearest" not in row.estimates()


def test_cloning_needs_two_clips_of_a_speaker(clips):
    with pytest.raises(EvaluationError, match="two clips"):
        clone_rows(TTS("voice_clone"), clips[:3], panel(), Speaking(), Embedder())


def test_descriptions_that_are_obeyed_and_not(clips):
    pairs = [Pair("pitch", "low", "high"), Pair("speed", "slow", "fast")]
    # Obeys pitch; speaks slower when fast speech is requested.
    tts = TTS(
        "voice_design",
        pitch=lambda words: {"low": 110, "high": 220}.get(words, 150),
        frames=lambda words: {"slow": 10, "fast": 20}.get(words, 12),
    )
    by_pitch, by_speed = description_rows(tts, clips, Speaking(), pairs)
    assert (len(by_pitch.clips), len(by_speed.clips)) == (3, 2)
    assert by_pitch.estimates()["moved"].value == 1
    assert by_pitch.estimates()["moved_by"].value == pytest.approx(1200, abs=30)
    assert by_speed.estimates()["moved"].value == 0
    assert by_speed.estimates()["moved_by"].value == pytest.approx(-50, abs=5)
    seeds = [options["seed"] for *_, options in tts.requests]
    assert seeds == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    with pytest.raises(RequestError, match="takes no descriptions"):
        description_rows(TTS("voice_clone"), clips, Speaking(), pairs)


def test_the_usual_pairs_differ_in_the_described_word_only():
    pairs = default_pairs()
    assert {p.attribute for p in pairs} == {"pitch", "speed"}
    for p in pairs:
        low, high = p.low.split(), p.high.split()
        assert low != high and set(low) & set(high)
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize(
    "line", ["{", '{"attribute": "pitch"}', '{"attribute": "age", "low": "a", "high": "b"}', "[]"]
)
def test_a_faulty_line_of_pairs_is_named(tmp_path, line):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"attribute": "pitch", "low": "a", "high": "b"}\n' + line + "\n")
    with pytest.raises(DataError, match="line 2 of"):
        read_pairs(path)


def test_speed_counts_the_first_chunk_and_all_of_them(clips):
    (row,) = speed_rows(TTS("custom_voice"), clips[:2], Speaking())
    found = row.estimates()
    assert 0 < found["first_audio_ms"].value < 1e3 * found["real_time_factor"].value * 12 * 0.08 + 1
    assert row.clips.keys() and found["real_time_factor"].clips == 2
