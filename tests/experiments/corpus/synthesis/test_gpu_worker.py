"""Piper's clips on a GPU: batches, the times of words in a clip, and a run that goes on."""

import json
import sys

import numpy as np
import pytest
import soundfile

from experiments.corpus.synthesis import gpu_worker, piper
from experiments.corpus.synthesis.cpu_worker import write_audio
from experiments.corpus.synthesis.kokoro import HOP, KokoroVoice
from experiments.corpus.synthesis.piper import PiperVoice

SAMPLES = 16 * piper.HOP  # of every phoneme id that the fake voice speaks


def test_batches_have_every_job_once_and_a_bounded_size():
    lengths = [*np.random.default_rng(0).integers(1, 900, 5000), 13000]
    jobs = [{"id": n, "tokens": [0] * length} for n, length in enumerate(lengths)]
    groups = list(PiperVoice.batches(jobs))
    assert sorted(each["id"] for group in groups for each in group) == list(range(len(jobs)))
    padded = 0
    for group in groups:
        longest = max(len(each["tokens"]) for each in group)
        assert len(group) == 1 or len(group) * longest <= piper._BATCH_IDS
        padded += len(group) * longest
    assert padded < 1.1 * sum(lengths)
    assert list(PiperVoice.batches([])) == []


def tone(*seconds, rate):
    """Silence and a tone in turn."""
    parts = []
    for n, length in enumerate(seconds):
        time = np.arange(round(length * rate)) / rate
        edges = np.clip(np.minimum(time, time[-1] - time) / 0.02, 0, 1)
        parts.append(n % 2 * 0.5 * edges * np.sin(2 * np.pi * 300 * time))
    return np.concatenate(parts).astype(np.float16)


@pytest.mark.parametrize("rate", [12000, 16000, 30000])
def test_times_are_those_of_the_trimmed_and_resampled_clip(tmp_path, rate):
    wave = tone(0.5, 1.0, 0.7, rate=rate)
    at = {0: 0.0, 2: 0.5, 5: 1.0, 7: 1.5, 9: 2.2}
    anchors = [[c, round(seconds * rate)] for c, seconds in at.items()]
    line = gpu_worker.finish(wave, rate, anchors, tmp_path / "a.flac")
    info = soundfile.info(tmp_path / "a.flac")
    # A tenth of a second of silence stays at both ends.
    assert info.samplerate == 24000 and info.duration == pytest.approx(1.2, abs=0.03)
    assert line["id"] == "a" and line["seconds"] == info.duration
    characters, seconds = zip(*line["alignment"], strict=True)
    assert characters == tuple(at)
    assert seconds == pytest.approx([0.0, 0.1, 0.6, 1.1, info.duration], abs=0.02)
    assert seconds[0] == 0 and seconds[-1] == pytest.approx(info.duration, abs=1e-3)


def test_made_are_clips_with_a_whole_line(tmp_path):
    assert gpu_worker.made(tmp_path) == set()
    for name in ("whole", "cut", "no_line"):
        write_audio(tmp_path / f"{name}.flac", np.ones(240, np.float32))
    lines = [json.dumps({"id": name, "alignment": []}) for name in ("whole", "no_clip", "cut")]
    (tmp_path / gpu_worker.ALIGNMENTS).write_text("\n".join(lines))
    assert gpu_worker.made(tmp_path) == {"whole"}


@pytest.fixture
def voice(monkeypatch):
    """A voice that hums; returns the ids of the jobs of each batch that it spoke."""
    spoken = []

    class SpeakerCondition:
        lead = 0
        batches = staticmethod(PiperVoice.batches)

        def __init__(self, models, device):
            self.rate = 22050
            assert device == "cuda"

        def __call__(self, jobs):
            spoken.append([each["id"] for each in jobs])
            longest = max(len(each["tokens"]) for each in jobs)
            samples = [
                [SAMPLES * (n < len(each["tokens"])) for n in range(longest)] for each in jobs
            ]
            time = np.arange(longest * SAMPLES) / self.rate
            wave = 0.5 * np.sin(2 * np.pi * 250 * time).astype(np.float16)
            return np.stack([wave] * len(jobs)), np.array(samples, np.int64)

    monkeypatch.setattr(gpu_worker, "PiperVoice", SpeakerCondition)
    return spoken


def job(name, length, pitch=1.0):
    anchors = [[0, 1], [4, length]]
    voice = {"engine": "piper", "pitch": pitch, "speed": 1.0}
    return {"id": name, "tokens": [5] * length, "anchors": anchors} | voice


def run(jobs, out, **options):
    return dict(gpu_worker.run(jobs, [], out, "cuda", 1, **options))


def aligned(out):
    lines = (out / gpu_worker.ALIGNMENTS).read_text().splitlines()
    return [(row["id"], row["alignment"]) for row in map(json.loads, lines)]


def test_clips_are_made_once_with_the_times_of_their_words(voice, tmp_path):
    jobs = [job("a", 4), job("joe+12", 6, pitch=2.0), job("c", 2)]
    out = tmp_path / "audio"
    assert run(jobs, out, seconds=-1.0) == {} and voice == []
    first = run(jobs[:2], out)
    unit = SAMPLES / 22050
    assert first == pytest.approx({"a": 4 * unit, "joe+12": 3 * unit}, abs=0.01)
    for name, seconds in first.items():
        duration = soundfile.info(out / f"{name}.flac").duration
        assert seconds == pytest.approx(duration, abs=0.0006)
    at = dict(aligned(out))
    assert at["a"] == [[0, pytest.approx(unit, abs=0.01)], [4, pytest.approx(4 * unit, abs=0.01)]]
    assert [seconds for _, seconds in at["joe+12"]] == pytest.approx([unit / 2, 3 * unit], abs=0.01)
    assert run(jobs, out).keys() == {"c"}
    assert run(jobs, out) == {}
    assert [sorted(group) for group in voice] == [["a", "joe+12"], ["c"]]


def test_run_goes_on_after_a_cut_line(voice, tmp_path):
    jobs = [job("a", 4), job("b", 4), job("c", 4)]
    run(jobs[:2], tmp_path)
    lines = tmp_path / gpu_worker.ALIGNMENTS
    cut = aligned(tmp_path)[-1][0]
    lines.write_text(lines.read_text()[:-20])
    assert run(jobs, tmp_path).keys() == {cut, "c"}
    assert sorted(name for name, _ in aligned(tmp_path)) == ["a", "b", "c"]
    assert run(jobs, tmp_path) == {}


def test_run_that_ends_amid_the_clips_has_lines_of_those_it_gave(voice, tmp_path):
    jobs = [job("a", 4), job("b", 4), job("c", 4)]
    running = gpu_worker.run(jobs, [], tmp_path, "cuda", 1)
    kept = [next(running)[0], next(running)[0]]
    running.close()
    assert [name for name, _ in aligned(tmp_path)] == kept
    assert run(jobs, tmp_path).keys() == {"a", "b", "c"} - set(kept)


class Kokoro:
    """A voice whose tokens take as many frames as their ids say, and a pad at both ends two."""

    rate, lead = 24000, 1
    batches = staticmethod(KokoroVoice.batches)

    def __init__(self, models, device):
        pass

    def __call__(self, jobs):
        frames = [HOP * np.array([2, *each["tokens"], 2]) for each in jobs]
        tones = [0.5 * np.sin(0.06 * np.arange(each.sum())) for each in frames]
        return [tone.astype(np.float16) for tone in tones], frames


def test_jobs_of_both_engines_are_made(voice, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_worker, "KokoroVoice", Kokoro)
    kokoro = {"id": "k", "engine": "kokoro", "voice": "af_sky", "speed": 1.0}
    kokoro |= {"tokens": [3, 16, 10], "anchors": [[0, 0], [3, 1], [4, 2], [7, 3]]}
    assert run([job("a", 4), kokoro], tmp_path).keys() == {"a", "k"}
    frame = HOP / 24000
    wanted = [[0, 2 * frame], [3, 5 * frame], [4, 21 * frame], [7, 31 * frame]]
    found = dict(aligned(tmp_path))["k"]
    assert [c for c, _ in found] == [c for c, _ in wanted]
    assert [t for _, t in found] == pytest.approx([t for _, t in wanted], abs=0.001)
    assert run([job("a", 4), kokoro], tmp_path) == {}
    assert run([kokoro], tmp_path / "late", seconds=-1.0) == {}


def test_job_of_an_earlier_plan_is_named(voice, tmp_path):
    bare = job("a", 4)
    del bare["anchors"]
    with pytest.raises(RuntimeError, match="job a has no anchors.*run the step plan"):
        run([bare], tmp_path)


def test_without_its_packages_a_gpu_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "experiments.corpus.onnx.torch_runner", None)
    with pytest.raises(RuntimeError, match="torch and onnx"):
        next(gpu_worker.run([job("a", 4)], [], tmp_path, "cuda", 1))
