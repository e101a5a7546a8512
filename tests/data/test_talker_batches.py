"""Talker batches: every clip in a fitting bucket, in all layouts, exact after a resume."""

import dataclasses
import hashlib
import importlib
import json
import types

import jax
import numpy as np
import pytest

from qtts_jax.data.codes import Codes, encode_dataset, pack, unpack
from qtts_jax.data.dataset import Record, Waves
from qtts_jax.data.mels import log_mels
from qtts_jax.data.talker_batches import TalkerBatchConfig, TalkerBatches
from qtts_jax.data.talker_examples import even_pace
from qtts_jax.data.talker_layout import LayoutMix
from qtts_jax.data.talker_plan import (
    draw_choices,
    example_positions,
    plan_batches,
    repeated,
)
from qtts_jax.dsp.mel import log_mel
from qtts_jax.errors import DataError
from qtts_jax.tts.speaker_embedder import mel_config
from tests.support.small_talker import BOOKS, CLONING, ENTRIES, MODEL
from tests.support.speech_files import byte_tokenizer, corpus, half_written, tone

RATE, CLIPS = 24000, 23
FRAMES = [4 + 3 * (i % 5) for i in range(CLIPS)]
NAMES = ("Ryan", "Eric", "nobody", "alone")


def record(i):
    speaker = 3 if i == 0 else i % 3
    instruction = "Whisper." if i % 4 == 1 else None
    return Record(
        i, 0, 0, 0, FRAMES[i] * 1920, i + 1, f"text {i}", NAMES[speaker],
        "english" if i % 2 else "klingon", "train", instruction, {},
    )  # fmt: skip


RECORDS = tuple(record(i) for i in range(CLIPS))
DATASET = types.SimpleNamespace(
    sample_rate=RATE, records=RECORDS, select=lambda split: list(range(CLIPS))
)
VOICES = types.SimpleNamespace(
    sentences=lambda i: [f"SpeakerCondition {RECORDS[i].speaker}.", f"It is {RECORDS[i].speaker}."]
)


def all_codes():
    """The first code of every frame of clip i is i."""
    rng = np.random.default_rng(0)
    codes = {
        i: rng.integers(0, ENTRIES, (n, BOOKS)).astype(np.uint16) for i, n in enumerate(FRAMES)
    }
    for i, c in codes.items():
        c[:, 0] = i
    return Codes(codes, "hash")


def all_waves():
    waves = [tone(80 + 10 * i, n * 0.08, RATE) for i, n in enumerate(FRAMES)]
    return Waves(RATE, np.arange(CLIPS), waves, np.asarray([len(w) for w in waves]))


WAVES = all_waves()
SIZES = {"positions": (48, 80, 120), "batch_positions": 8 * 120, "mel_frames": 40}
SETTINGS = {field.name for field in dataclasses.fields(TalkerBatchConfig)}


def batches(model=MODEL, dataset=DATASET, codes=None, **options):
    """Batches of `TalkerBatches`; the options that are settings go into its config."""
    if model is CLONING:
        options = {"waves": WAVES} | options
    settings = SIZES | {name: options.pop(name) for name in SETTINGS & set(options)}
    codes = all_codes() if codes is None else codes
    config = TalkerBatchConfig(**settings)
    return TalkerBatches(
        model, dataset, codes, byte_tokenizer(), config, **{"threads": 0} | options
    )


def clips_of(batch):
    return batch["codes"][:, 0, 0]


def certain(**options):
    off = dict(
        stream_text=0.0, language_tag=0.0, preset=0.0, no_speaker=0.0, in_context=0.0, instruct=0.0
    )
    return LayoutMix(**off | options)


def test_an_epoch_has_every_clip_and_its_own_order():
    source = batches(voices=VOICES)
    first = [next(source) for _ in range(40)]
    assert {b["text"].shape for b in first} <= {(r, s.positions) for r, s in source.shapes}
    assert [r for r, _ in source.shapes] == [16, 8, 8]
    ends = np.cumsum([len(b["codes"]) for b in first])
    count = int(np.searchsorted(ends, CLIPS)) + 1
    assert set(np.concatenate([clips_of(b) for b in first[:count]])) == set(range(CLIPS))


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("config", [MODEL, CLONING], ids=["presets", "clones"])
def test_planned_lengths_are_those_of_the_examples(config, times):
    source = batches(config, voices=VOICES, mix=LayoutMix(no_speaker=0.3))
    source._clips = np.repeat(np.arange(CLIPS), times)
    for number in range(40):
        epoch, plan = source._planned(number)
        planned = example_positions(source._table, epoch.choices)
        batch = source._make(number)
        np.testing.assert_array_equal(batch["lengths"], planned[plan.examples])
        np.testing.assert_array_equal(clips_of(batch), epoch.choices.clip[plan.examples])


def test_layouts_are_those_of_the_mix():
    config = CLONING
    source = batches(config, mix=certain())
    batch = next(source)
    # All but the clip of the lonely speaker are clones, by the mel of another clip.
    np.testing.assert_array_equal(batch["has_mel"], clips_of(batch) != 0)
    assert (batch["speaker"].sum(axis=1) == batch["has_mel"]).all()
    text_rows = (batch["text"] != -1).sum(axis=1)
    assert (text_rows == batch["lengths"]).all()

    batch = next(batches(config, mix=certain(in_context=1.0)))
    # The residual of reference frames stands in front of the first frame.
    before = np.arange(batch["codec"].shape[1]) <= batch["start"][:, None]
    reference = (before & (batch["residual"][..., 0] >= 0)).sum(axis=1)
    assert (reference[clips_of(batch) == 0] == 0).all() and reference.max() >= 4
    for row, (clip, frames) in enumerate(zip(clips_of(batch), reference, strict=True)):
        if frames:
            other = int(batch["codec"][row, batch["start"][row] - frames + 1])
            assert other != clip and RECORDS[other].speaker == RECORDS[clip].speaker

    batch = next(batches(config, mix=certain(no_speaker=1.0)))
    assert not batch["has_mel"].any() and not batch["speaker"].any()


def test_presets_and_language_tags_are_used_where_the_model_has_them():
    batch = next(batches(MODEL, mix=certain(preset=1.0, language_tag=1.0)))
    ids, english = dict(MODEL.talker.speakers), dict(MODEL.talker.languages)["english"]
    for row, clip in enumerate(clips_of(batch)):
        prompt = batch["codec"][row, : batch["start"][row]].tolist()
        name = RECORDS[clip].speaker.lower()
        assert [i for i in ids.values() if i in prompt] == ([ids[name]] if name in ids else [])
        assert (english in prompt) == (clip % 2 == 1)


def test_the_instruction_of_the_manifest_goes_before_a_description():
    tokenizer, seen = byte_tokenizer(), set()
    spoken = [tuple(tokenizer.instruct_ids(s)) for i in range(CLIPS) for s in VOICES.sentences(i)]
    given = tuple(tokenizer.instruct_ids("Whisper."))
    source = batches(MODEL, voices=VOICES, mix=certain(no_speaker=1.0))
    for _ in range(20):
        batch = next(source)
        for row, clip in enumerate(clips_of(batch)):
            text = tuple(batch["text"][row].tolist())
            found = {s for s in {*spoken, given} if text[: len(s)] == s}
            assert len(found) == 1, "a clip without a speaker or a description"
            assert (found == {given}) == (clip % 4 == 1)
            seen |= found
    assert len(seen) > 4


def test_a_clip_that_has_no_voice_in_the_end_is_described():
    """No description is wanted, but the lonely speaker has no other clip and is no preset."""
    table = batches(CLONING, voices=VOICES)._table
    clips = np.arange(CLIPS)
    mix = certain(in_context=0.5, stream_text=0.5, language_tag=0.5)
    choices = draw_choices(table, mix, np.random.default_rng(3), clips)
    np.testing.assert_array_equal(choices.no_speaker, clips == 0)
    np.testing.assert_array_equal(choices.instruct, clips == 0)
    # What is drawn for the others is what it would be with a description for everyone.
    every = dataclasses.replace(mix, instruct=1.0)
    described = draw_choices(table, every, np.random.default_rng(3), clips)
    for name in set(choices._fields) - {"instruct", "instruction"}:
        np.testing.assert_array_equal(getattr(choices, name), getattr(described, name))
    assert choices.instruction[0] == described.instruction[0]


def aligned(clip, alignment, **changes):
    """The dataset, one clip of which has an alignment."""
    records = list(RECORDS)
    records[clip] = dataclasses.replace(records[clip], extra={"alignment": alignment}, **changes)
    return types.SimpleNamespace(**vars(DATASET) | {"records": records})


def test_an_alignment_says_what_is_spoken_and_an_even_pace_where_there_is_none():
    assert FRAMES[4] == 16
    # Half of the text takes 14.4 of the 16 frames.
    dataset, tokenizer = aligned(4, [[0, 0], [3, 1.152], [6, 1.28]]), byte_tokenizer()
    source, seen = batches(dataset=dataset), set()
    for _ in range(10):
        batch = next(source)
        for clip, spoken in zip(clips_of(batch), batch["spoken"], strict=True):
            ids = tokenizer.assistant_ids(f"text {clip}")[1]
            wanted = even_pace(ids, FRAMES[clip])
            if clip == 4:
                wanted = np.asarray(ids)[[0] * 5 + [1] * 5 + [2] * 4 + [3, 5]]
            np.testing.assert_array_equal(spoken[: FRAMES[clip]], wanted)
            assert (spoken[FRAMES[clip] :] == -1).all()
            seen.add(clip)
    assert len(seen) == CLIPS


def test_an_alignment_needs_the_frame_rate_of_the_codes():
    dataset = aligned(4, [[0, 0], [6, 1.28]])
    with pytest.raises(DataError, match=r"line 5 .* 16 frames in 1.28 s, .* not 25 a second"):
        batches(dataset=dataset, frame_rate=25)
    batches(frame_rate=25)


# sha256 of the batches that these options and seeds gave before the layouts were drawn by the plan
# alone; mels are replaced by numbered rows, so that no digest depends on a Fourier transform.
REFERENCE_BATCHES = {
    "presets": "c7ffc71793d18fe52df51040e90f6d9229b7083ddb11a67fb5ce0b833384a3c4",
    "clones": "f1eeae23814d9dc7c94cf24aa99e5e9c45d2eb7113763542e417b68ebc733373",
    "aligned": "ec734af6134944a8656625ccb2af3256859cf91d9204ca8e0a1f5b95896c2bc8",
}


def digest_of_batches(source, count):
    if source._mels:
        source._mels = {
            i: (100 * i + np.arange(len(mel) * mel.shape[1]).reshape(mel.shape) % 97).astype(
                np.float16
            )
            for i, mel in source._mels.items()
        }
    found = hashlib.sha256()
    for _ in range(count):
        for name, value in sorted(next(source).items()):
            found.update(f"{name} {value.dtype} {value.shape}".encode())
            found.update(value.tobytes())
    return found.hexdigest()


def reference_sources():
    mix = LayoutMix(
        stream_text=0.4, language_tag=0.6, preset=0.5, no_speaker=0.3, in_context=0.7, instruct=0.5
    )
    alignment = [[0, 0], [3, 1.152], [6, 1.28]]
    return {
        "presets": batches(voices=VOICES, mix=mix, rare_speaker_repeats=2, seed=3),
        "clones": batches(
            CLONING, voices=VOICES, mix=mix, batches_per_bucket_run=2, mel_frames=24, seed=5
        ),
        "aligned": batches(CLONING, dataset=aligned(4, alignment), indices=range(2, CLIPS)),
    }


@pytest.mark.parametrize("name", list(REFERENCE_BATCHES))
def test_the_same_seed_gives_the_same_batches_as_before(name):
    assert digest_of_batches(reference_sources()[name], 30) == REFERENCE_BATCHES[name]


@pytest.mark.parametrize("threads", [0, 3])
def test_a_resumed_run_sees_the_batches_that_would_have_followed(threads):
    options = {"voices": VOICES, "threads": threads}
    whole = batches(CLONING, **options)
    expected = [next(whole) for _ in range(25)]
    first = batches(CLONING, **options)
    for _ in range(19):
        next(first)
    position = json.loads(json.dumps(first.state()))
    again = batches(CLONING, **options)
    again.restore(position)
    for wanted in expected[19:]:
        jax.tree.map(np.testing.assert_array_equal, next(again), wanted)
    again.restore({**position, "next": 0})
    jax.tree.map(np.testing.assert_array_equal, next(again), expected[0])


def test_a_run_does_not_go_on_with_other_clips(monkeypatch):
    position = batches().state()
    # The same clips, laid out otherwise.
    batches(rare_speaker_repeats=2, mix=certain()).restore(position)
    changed = Codes({i: all_codes()[i].astype(np.uint16) for i in range(CLIPS)}, "hash")
    changed._codes[7][0, 1] += 1
    other = [
        batches(indices=range(CLIPS - 1)),
        batches(dataset=aligned(4, None, text="other")),
        batches(codes=changed),
        batches(seed=1),
    ]
    for source in other:
        with pytest.raises(DataError, match="begin another run with its weights"):
            source.restore(position)
        with pytest.raises(DataError, match="TalkerBatches"):
            source.restore(position | {"kind": "TokenizerBatches"})


def test_what_does_not_fit_is_refused_before_training():
    with pytest.raises(DataError, match="clips need up to .* leave those clips out"):
        batches(positions=(16, 24))
    with pytest.raises(DataError, match="no speaker encoder"):
        batches(MODEL, waves=WAVES)
    with pytest.raises(DataError, match="cannot come 0 times in an epoch"):
        batches(rare_speaker_repeats=0)
    with pytest.raises(DataError, match="0 batches cannot follow"):
        batches(batches_per_bucket_run=0)
    codes = Codes({i: c for i, c in all_codes().items() if i != 9}, "hash")
    with pytest.raises(DataError, match="clip 9 has no codes"):
        batches(codes=codes)


@pytest.mark.parametrize("run", [1, 3])
def test_a_plan_fills_batches_and_wastes_no_clip(run):
    rng = np.random.default_rng(0)
    positions = rng.integers(1, 30, 200)
    batches = plan_batches(positions, (10, 20, 30), (16, 8, 4), rng, run)
    buckets = np.asarray([b.bucket for b in batches]).reshape(-1, run)
    assert (buckets == buckets[:, :1]).all()
    assert all(len(b.examples) == (16, 8, 4)[b.bucket] for b in batches)
    assert all(positions[b.examples].max() <= (10, 20, 30)[b.bucket] for b in batches)
    count = np.bincount(np.concatenate([b.examples for b in batches]), minlength=200)
    assert count.min() == 1 and count.sum() - 200 < 4 * run


def test_rare_speakers_come_more_often_in_an_epoch():
    names = ["much"] * 197 + ["little"] * 2 + ["single"]
    records = [dataclasses.replace(RECORDS[0], speaker=name) for name in names]
    clips = repeated(records, 3)
    np.testing.assert_array_equal(np.bincount(clips), [1] * 197 + [1] * 2 + [3])
    np.testing.assert_array_equal(repeated(records, 1), np.arange(200))
    assert repeated(records[:50] * 5 + records[197:], 3).tolist()[-6:] == [251] * 3 + [252] * 3


def test_repeated_clips_have_layouts_of_their_own_and_are_never_their_own_voice():
    table, rng = batches(CLONING)._table, np.random.default_rng(0)
    clips = np.repeat(np.arange(CLIPS), 3)
    choices = draw_choices(table, LayoutMix(in_context=1.0), rng, clips)
    assert (choices.clip == clips).all() and (choices.reference != clips).all()
    for clip, other in zip(clips, choices.reference, strict=True):
        assert other == -1 if clip == 0 else RECORDS[other].speaker == RECORDS[clip].speaker
    assert len(set(choices.stream_text.reshape(CLIPS, 3).sum(axis=1))) > 2
    lengths = example_positions(table, choices)
    wanted = table.frames[clips] + np.where(choices.in_context, table.frames[choices.reference], 0)
    assert (lengths > wanted).all()


def test_mels_are_those_of_the_speaker_encoder():
    config = mel_config(CLONING.speaker_encoder)
    mels = log_mels(WAVES, [1, 8], config, progress=False)
    for i, found in mels.items():
        wanted = log_mel(WAVES[i].astype(np.float32) / 32768, config)[0]
        np.testing.assert_allclose(found, wanted, atol=0.01)


@pytest.mark.parametrize("entries", [2, 256, 2048, 32768])
def test_packed_codes_come_back(tmp_path, entries):
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, entries, (n, 3)) for n in (1, 7, 4)]
    content = pack(RECORDS[2:5], codes)
    (tmp_path / "codes.npz").write_bytes(content)
    found = unpack(tmp_path / "codes.npz")
    assert sorted(found) == [2, 3, 4]
    for i, wanted in enumerate(codes):
        np.testing.assert_array_equal(found[i + 2], wanted)
    (tmp_path / "codes.npz").write_bytes(content[:-200])
    with pytest.raises(DataError, match="damaged"):
        unpack(tmp_path / "codes.npz")


class FakeTokenizer:
    """Codes that count the samples; counts its calls."""

    input_sample_rate = sample_rate = 8000
    calls = 0

    @classmethod
    def from_pretrained(cls, directory):
        return cls()

    def encode(self, items):
        FakeTokenizer.calls += 1
        return [np.full((len(wave) // 800 + 1, 2), len(wave) % 2000) for wave, _ in items]


def test_a_dataset_is_encoded_once_for_each_tokenizer(tmp_path, monkeypatch):
    module = importlib.import_module("qtts_jax.data.codes")
    prepare = importlib.import_module("qtts_jax.data.prepare").prepare
    monkeypatch.setattr(module, "SpeechTokenizer", FakeTokenizer)
    dataset = prepare(
        corpus(tmp_path), tmp_path / "set", sample_rate=8000, shard_bytes=20_000, progress=False
    )
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer/config.json").write_text("{}")
    codes = encode_dataset(dataset, tmp_path / "tokenizer", progress=False)
    shards = len(list((tmp_path / "set").glob("*.bin")))
    assert len(codes) == 12 and shards > 1 and FakeTokenizer.calls == shards
    for record in dataset.records:
        assert codes[record.index].shape == (record.samples // 800 + 1, 2)
        assert (codes[record.index] == record.samples % 2000).all()
    encode_dataset(dataset, tmp_path / "tokenizer", progress=False)
    assert FakeTokenizer.calls == shards
    # A shard that is missing is made again, and another checkpoint has codes of its own.
    kept = next((tmp_path / "set").glob("codes-*/shard-00001.npz"))
    kept.unlink()
    left = half_written(kept.parent, kept.name)
    encode_dataset(dataset, tmp_path / "tokenizer", progress=False)
    assert FakeTokenizer.calls == shards + 1 and not left.exists()
    (tmp_path / "tokenizer/config.json").write_text('{"other": 1}')
    assert encode_dataset(dataset, tmp_path / "tokenizer", progress=False).tokenizer != (
        codes.tokenizer
    )
    assert FakeTokenizer.calls == 2 * shards + 1
    # A 25 Hz tokenizer encodes 16 kHz and decodes 24 kHz: the rate of either will do.
    monkeypatch.setattr(FakeTokenizer, "input_sample_rate", 24000)
    (tmp_path / "tokenizer/config.json").write_text('{"third": 1}')
    encode_dataset(dataset, tmp_path / "tokenizer", progress=False)
    assert FakeTokenizer.calls == 3 * shards + 1
    monkeypatch.setattr(FakeTokenizer, "sample_rate", 24000)
    (tmp_path / "tokenizer/config.json").write_text("[]")
    before = sorted((tmp_path / "set").iterdir())
    with pytest.raises(DataError, match="24000 Hz"):
        encode_dataset(dataset, tmp_path / "tokenizer", progress=False)
    assert sorted((tmp_path / "set").iterdir()) == before
