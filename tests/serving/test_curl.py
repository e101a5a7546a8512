"""The server and curl, as its users call it: bare samples, a file, an upload, faults."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import soundfile

from qtts_jax.serving.encoders import pcm16
from qtts_jax.serving.http.settings import ServerSettings
from qtts_jax.tts.voices import CustomVoice
from tests.support.live_server import live_server

CURL = shutil.which("curl")
pytestmark = pytest.mark.skipif(CURL is None, reason="needs curl: `apt-get install curl`")


@pytest.fixture(scope="module")
def address(engine):
    with live_server(engine, ServerSettings()) as address:
        yield address


@pytest.fixture
def curl(address):
    """`curl(path, *options)`: the body of the answer."""

    def call(path, *options):
        command = [CURL, "--silent", "--show-error", *options, f"http://{address}{path}"]
        return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout

    return call


def test_bare_samples(curl, model):
    body = {"text": "Hello.", "language": "english", "voice": "ryan", "seed": 1}
    got = np.frombuffer(curl("/tts/stream", "--no-buffer", "--json", json.dumps(body)), "<i2")
    wanted = pcm16(model.generate([CustomVoice("Hello.", "ryan", "english", seed=1)])[0].wave)
    assert got.shape == wanted.shape
    assert np.max(np.abs(got.astype(int) - wanted)) <= 1


def test_a_file(curl, tmp_path):
    body = {"input": "Hello.", "response_format": "wav", "seed": 1, "max_new_tokens": 11}
    path = tmp_path / "speech.wav"
    curl("/v1/audio/speech", "--json", json.dumps(body), "--output", str(path))
    wave, rate = soundfile.read(path)
    assert rate == 24000 and len(wave) == 10 * 1920


def test_an_upload_that_this_checkpoint_cannot_use(curl, tmp_path):
    path = tmp_path / "voice.wav"
    soundfile.write(path, np.zeros(2400), 24000)
    answer = curl("/v1/audio/voices", "--form", "name=mine", "--form", f"audio=@{path}")
    assert "voice_clone" in json.loads(answer)["error"]["message"]
    assert curl("/health", "--fail") == b'{"status":"ok"}'
