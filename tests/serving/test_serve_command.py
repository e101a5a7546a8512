"""`qtts serve` as a process: it warms up, serves the usual clients, and drains on SIGTERM."""

import io
import signal
import sys

import pytest
import requests
import soundfile

from tests.support.server_process import free_port, server_process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def process(converted, tmp_path_factory):
    port, log = free_port(), tmp_path_factory.mktemp("serve") / "log"
    limits = ["--rows", "1", "--chunk-frames", "1", "--max-prompt", "64", "--max-seconds", "4"]
    command = [sys.executable, "-m", "qtts_jax", "serve", "--port", str(port), *limits]
    command += ["--model", str(converted("custom_voice"))]
    with server_process(command, port, log, QTTS_API_KEY="secret") as process:
        yield process


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
