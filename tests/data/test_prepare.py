"""Prepared datasets: every clip at its rate, in movable files, also after interruptions."""

import importlib
import json
import shutil

import librosa
import numpy as np
import pytest
import soundfile

from qtts_jax.data.__main__ import main
from qtts_jax.data.dataset import Dataset, load_waves
from qtts_jax.data.prepare import prepare
from qtts_jax.errors import AudioError, DataError
from tests.support.speech_files import RATE, corpus, half_written, tone, write_manifest

# The package has the function under the name of its module.
module = importlib.import_module("qtts_jax.data.prepare")
QUIET = {"progress": False, "workers": 2}


@pytest.fixture
def manifest(tmp_path):
    return corpus(tmp_path)


def files(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_clips_come_back_as_they_were(tmp_path, manifest):
    dataset = prepare(manifest, tmp_path / "set", sample_rate=RATE, shard_bytes=20_000, **QUIET)
    assert len(dataset) == 12 and len(list((tmp_path / "set").glob("*.bin"))) > 1
    for i, record in enumerate(dataset.records):
        given, _ = soundfile.read(tmp_path / f"clip{i}.wav", dtype="float32")
        np.testing.assert_allclose(dataset.wave(i), given, atol=2**-15)
        assert record.index == i and record.samples == len(given) and record.line == i + 1
        assert record.speaker == f"speaker{i % 3}" and record.extra == {"source": "tones"}
    shutil.move(tmp_path / "set", tmp_path / "moved")
    waves = load_waves(Dataset(tmp_path / "moved"), [5, 2], progress=False)
    assert len(waves) == 2 and waves.positions == {5: 0, 2: 1}
    wave = Dataset(tmp_path / "moved").wave(2)
    np.testing.assert_array_equal(waves[1] / np.float32(32768), wave)


def test_opus_is_kept_byte_for_byte_and_resampled_at_load(tmp_path):
    manifest = corpus(tmp_path, 2, rate=16000)
    wave = tone(200, 1.0, 16000)
    soundfile.write(tmp_path / "clip0.ogg", wave, 16000, format="OGG", subtype="OPUS")
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[0]["audio"] = "clip0.ogg"
    write_manifest(tmp_path, lines)
    dataset = prepare(manifest, tmp_path / "set", sample_rate=24000, **QUIET)
    assert dataset.encoded(0) == (tmp_path / "clip0.ogg").read_bytes()
    assert dataset.encoded(1)[:4] == b"fLaC"
    decoded, _ = soundfile.read(tmp_path / "clip0.ogg", dtype="float32")
    wanted = librosa.resample(y=decoded, orig_sr=16000, target_sr=24000)
    np.testing.assert_array_equal(dataset.wave(0), wanted)
    assert dataset.records[1].samples == 1.5 * 0.45 * 16000


def test_a_stopped_call_goes_on_and_gives_the_same_files(tmp_path, manifest, monkeypatch):
    options = dict(sample_rate=RATE, shard_bytes=20_000, **QUIET)
    whole = files(prepare(manifest, tmp_path / "whole", **options).directory)
    write, written = module._write_shard, []

    def stop_at_second(*arguments):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(arguments[1])
        return write(*arguments)

    monkeypatch.setattr(module, "_write_shard", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        prepare(manifest, tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()
    monkeypatch.setattr(module, "_write_shard", lambda *a: written.append(a[1]) or write(*a))
    assert files(prepare(manifest, tmp_path / "set", **options).directory) == whole
    assert written == list(range(len(written))), "a finished shard was written again"


@pytest.fixture
def begun(tmp_path, manifest):
    """A manifest whose preparation was interrupted as it began."""

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_put", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(manifest, tmp_path / "set", sample_rate=RATE, **QUIET)
    return manifest


def test_a_file_that_a_kill_left_half_written_does_not_stay(tmp_path, begun):
    half_written(tmp_path / "set.unfinished", "shard-00000.bin")
    dataset = prepare(begun, tmp_path / "set", sample_rate=RATE, **QUIET)
    assert {path.name for path in dataset.directory.iterdir()} == {
        "dataset.json", "shard-00000.bin", "shard-00000.jsonl",
    }  # fmt: skip


@pytest.mark.usefixtures("begun")
def test_what_another_manifest_has_begun_is_not_mixed_in(tmp_path):
    manifest = corpus(tmp_path, 5)
    with pytest.raises(DataError, match="another manifest"):
        prepare(manifest, tmp_path / "set", sample_rate=RATE, **QUIET)
    assert len(prepare(manifest, tmp_path / "set", sample_rate=RATE, overwrite=True, **QUIET)) == 5


@pytest.mark.parametrize("fault", ["cut", "silent"])
def test_a_recording_that_cannot_be_used_leaves_no_dataset(tmp_path, manifest, fault):
    if fault == "cut":
        soundfile.write(tmp_path / "clip3.wav", tone(100, 0.5), RATE, format="FLAC")
        content = bytearray((tmp_path / "clip3.wav").read_bytes())
        content[len(content) // 3 :] = bytes(len(content) - len(content) // 3)
        (tmp_path / "clip3.wav").write_bytes(content)
    else:
        soundfile.write(tmp_path / "clip3.wav", np.zeros(RATE), RATE)
    inputs = sorted(tmp_path.iterdir())
    options = dict(sample_rate=RATE, shard_bytes=20_000, **QUIET)
    with pytest.raises((AudioError, DataError), match="line 4 of"):
        prepare(manifest, tmp_path / "set", **options)
    assert sorted(tmp_path.iterdir()) == inputs
    # The advice that the error gives is enough.
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:3] + lines[4:]))
    assert len(prepare(manifest, tmp_path / "set", **options)) == 11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 0}, "no sample rate of 0 Hz"),
        ({"sample_rate": -8000}, "no sample rate of -8000 Hz"),
        ({"held_out": 5}, "a share from 0 to 1, and 5 is not"),
        ({"held_out": -0.1}, "a share from 0 to 1"),
        ({"held_out": float("nan")}, "a share from 0 to 1"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_is_written(
    tmp_path, manifest, options, message
):
    inputs = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=message):
        prepare(manifest, tmp_path / "set", **{"sample_rate": RATE} | options, **QUIET)
    assert sorted(tmp_path.iterdir()) == inputs


def test_texts_are_held_out_unless_the_manifest_says_where_they_go(tmp_path):
    manifest = corpus(tmp_path, 4)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for line, split in zip(lines, ("train", "validation", None, None), strict=True):
        line |= {} if split is None else {"split": split}
    lines[3]["text"] = lines[1]["text"].upper()
    write_manifest(tmp_path, lines)
    dataset = prepare(manifest, tmp_path / "set", sample_rate=RATE, held_out=1.0, **QUIET)
    assert [r.split for r in dataset.records] == ["train", "validation", "test", "validation"]
    assert dataset.select("validation") == [1, 3]
    some = prepare(manifest, tmp_path / "some", sample_rate=RATE, keep=("test", "train"), **QUIET)
    assert [r.line for r in some.records] == [1, 3]
    with pytest.raises(DataError, match="keep others"):
        prepare(
            manifest, tmp_path / "none", sample_rate=RATE, held_out=0.0, keep=("test",), **QUIET
        )
    with pytest.raises(DataError, match="no clip"):
        dataset.select("train", lambda record: record.speaker == "nobody")


def test_an_earlier_dataset_is_replaced_only_when_asked(tmp_path, manifest):
    prepare(manifest, tmp_path / "set", sample_rate=RATE, **QUIET)
    manifest = corpus(tmp_path, 5)
    with pytest.raises(DataError, match="already exists"):
        prepare(manifest, tmp_path / "set", sample_rate=RATE, **QUIET)
    assert len(prepare(manifest, tmp_path / "set", sample_rate=RATE, overwrite=True, **QUIET)) == 5


def test_a_damaged_dataset_is_refused(tmp_path, manifest):
    directory = prepare(manifest, tmp_path / "set", sample_rate=RATE, **QUIET).directory
    with pytest.raises(DataError, match="prepared dataset"):
        Dataset(tmp_path)
    shard = directory / "shard-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"shard-00000.bin has \d+ bytes"):
        Dataset(directory)
    shard.unlink()
    with pytest.raises(DataError, match="missing"):
        Dataset(directory)


def test_the_command_says_what_it_made_or_what_is_wrong(tmp_path, manifest, capsys):
    arguments = ["prepare", str(manifest), str(tmp_path / "set"), "--sample-rate", str(RATE)]
    assert main(arguments) == 0
    assert "12 clips" in capsys.readouterr().out
    assert main(arguments) == 1
    assert "already exists" in capsys.readouterr().err
    assert main(["teacher", str(manifest), str(tmp_path / "encoder")]) == 1
    assert "no Whisper model" in capsys.readouterr().err


def test_an_untagged_manifest_keeps_clips_for_validation(tmp_path, capsys):
    manifest = corpus(tmp_path, 12)
    arguments = ["prepare", str(manifest), str(tmp_path / "set"), "--sample-rate", str(RATE)]
    assert main([*arguments, "--keep", "train", "validation"]) == 0
    dataset = Dataset(tmp_path / "set")
    train, validation = dataset.select("train"), dataset.select("validation")
    left = 12 - len(train) - len(validation)
    assert left >= 1 and dataset.left_out == {"test": left}
    printed = capsys.readouterr().out
    assert (
        f"train: {len(train)} clips" in printed
        and f"validation: {len(validation)} clips" in printed
    )
    assert f"test: {left} clips left out (not in --keep)" in printed


def test_help_of_prepare_shows_the_manifest_format(capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "--help"])
    text = capsys.readouterr().out
    for name in ("audio", "text", "speaker", "language", "split", "instruction", "alignment"):
        assert f"\n  {name} " in text
    assert '{"audio": "a.wav"' in text


def test_overwrite_leaves_folders_of_others_alone(manifest, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match=r"was not made by this package \(it has no dataset.json\)"):
        prepare(manifest, precious, sample_rate=RATE, overwrite=True, **QUIET)
    unfinished = tmp_path / "set.unfinished"
    precious.rename(unfinished)
    with pytest.raises(DataError, match="was not made by this package"):
        prepare(manifest, tmp_path / "set", sample_rate=RATE, overwrite=True, **QUIET)
    assert (unfinished / "thesis.txt").read_text() == "x"


def test_a_directory_that_holds_the_manifest_is_never_replaced(manifest, tmp_path):
    (manifest.parent / "dataset.json").touch()
    with pytest.raises(DataError, match="which is read"):
        prepare(manifest, manifest.parent, sample_rate=RATE, overwrite=True, **QUIET)
    assert manifest.exists()
