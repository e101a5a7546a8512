"""`qtts serve` as a process: it warms up, serves the usual clients, and drains on SIGTERM."""

import io
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import requests
import soundfile

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def process(converted):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    limits = ["--rows", "1", "--chunk-frames", "1", "--max-prompt", "64", "--max-seconds", "4"]
    command = [sys.executable, "-m", "qtts_jax", "serve", "--port", str(port), *limits]
    command += ["--model", str(converted("custom_voice"))]
    environment = {**os.environ, "QTTS_API_KEY": "secret"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    process.url = f"http://127.0.0.1:{port}"
    while not _ready(process.url):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.5)
    yield process
    process.kill()
    process.wait()


def _ready(url):
    try:
        return requests.get(f"{url}/ready", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def test_the_client_of_openai(process):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{process.url}/v1", api_key="secret")
    with client.audio.speech.with_streaming_response.create(
        model="qwen3-tts", voice="ryan", input="Hello.", response_format="wav"
    ) as answer:
        content = b"".join(answer.iter_bytes())
    wave, rate = soundfile.read(io.BytesIO(content))
    assert rate == 24000 and len(wave)
    with pytest.raises(openai.BadRequestError, match="unknown speaker"):
        client.audio.speech.create(model="qwen3-tts", voice="nobody", input="Hello.")


def test_sigterm_finishes_what_is_being_spoken(process):
    answer = requests.post(
        f"{process.url}/tts/stream",
        json={"text": "Some last words.", "voice": "ryan", "seed": 1},
        headers={"Authorization": "Bearer secret"},
        stream=True,
        timeout=60,
    )
    chunks = answer.iter_content(chunk_size=None)
    audio = next(chunks)
    process.send_signal(signal.SIGTERM)
    audio += b"".join(chunks)
    assert len(audio) > 10 * 2 * 1920 and len(audio) % (2 * 1920) == 0
    assert process.wait(timeout=60) == 0
