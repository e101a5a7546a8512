"""The worker as it is run on another machine: a script, real processes, an ONNX model, a kill."""

import json
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
import soundfile

from experiments.corpus.synthesis import cpu_worker
from tests.support.tiny_onnx import _bytes, _node, _number, _value

# So many clips take seconds, so that a test that is held up does not miss the middle.
SAMPLES, CLIPS = 9600, 300


def tiny_kokoro():
    """A model of Kokoro's inputs whose audio is the style times a matrix of tones."""
    tones = np.zeros((256, SAMPLES), "<f4")
    tones[0] = np.sin(np.arange(SAMPLES) / 10)
    matrix = _number(1, 256) + _number(1, SAMPLES) + _number(2, 1) + _bytes(8, "matrix")
    shape = _bytes(1, _number(1, 1)) + _bytes(1, _bytes(2, "n"))
    tokens = _bytes(1, "tokens") + _bytes(2, _bytes(1, _number(1, 7) + _bytes(2, shape)))
    graph = (
        _node("MatMul", ["style", "matrix"], "audio")
        + _bytes(2, "tiny_kokoro")
        + _bytes(5, matrix + _bytes(9, tones.tobytes()))
        + _bytes(11, tokens)
        + _value(11, "style", [1, 256])
        + _value(11, "speed", [1])
        + _value(12, "audio", [1, SAMPLES])
    )
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, "") + _number(2, 13))


@pytest.fixture
def away(tmp_path):
    """A folder as `build --export` writes it."""
    (tmp_path / "kokoro.onnx").write_bytes(tiny_kokoro())
    # The style of n tokens is row n - 1; only that of three is heard. What is drawn from two voices
    # that are alike is like both.
    style = np.zeros((510, 256), np.float16)
    style[2, 0] = 0.5
    np.savez(tmp_path / "voices.npz", af_heart=style, bf_emma=style, am_adam=8 * style)
    job = {"engine": "kokoro", "voice": "af~001", "tokens": [5, 6, 7], "speed": 1.0}
    lines = [json.dumps(job | {"id": f"clip{n}"}) for n in range(CLIPS)]
    (tmp_path / "jobs.jsonl").write_text("\n".join(lines))
    return tmp_path


def start(away, *options):
    files = ["--jobs", away / "jobs.jsonl", "--models", away, "--out", away / "out"]
    command = [sys.executable, cpu_worker.__file__, *files, "--workers", "1", *options]
    return subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True)


def clips(away):
    return {path.name: path.stat().st_mtime_ns for path in (away / "out").glob("*.ogg")}


def test_killed_script_goes_on_where_it_was(away):
    running = start(away)
    while len(clips(away)) < 3:
        assert running.poll() is None
        time.sleep(0.01)
    running.kill()
    running.wait()
    before = None
    while before != clips(away):  # the worker process ends by itself, with its clip
        before = clips(away)
        time.sleep(2)
    assert 3 <= len(before) < CLIPS
    again = start(away, "--pack")
    printed, _ = again.communicate(timeout=60)
    assert again.returncode == 0
    assert f"{CLIPS - len(before)} clips" in printed
    [pack] = (away / "out").iterdir()
    with tarfile.open(pack) as archive:
        names = archive.getnames()
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(away / "clips")
    assert sorted(names) == sorted(f"clip{n}.ogg" for n in range(CLIPS))
    wave, rate = soundfile.read(away / "clips/clip7.ogg")
    assert rate == 24000 and len(wave) == SAMPLES
    assert np.abs(wave[2400:-2400]).max() == pytest.approx(0.5, abs=0.05)
