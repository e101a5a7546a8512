"""The HTTP server in front of the engine, over a real connection."""

import base64
import io
import json
import socket
import threading
import time

import numpy as np
import pytest
import requests
import soundfile
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from experiments.bench import serve as bench
from experiments.bench import serve_requests
from experiments.bench.serve_client import Clients
from experiments.bench.serve_report import section
from qtts_jax.serving.encoders import pcm16
from qtts_jax.serving.http.settings import ServerSettings
from qtts_jax.serving.row_group import RowGroup
from qtts_jax.tts.voices import CustomVoice
from tests.support.live_server import live_server

KEY = "the key"
HEADERS = {"Authorization": f"Bearer {KEY}"}
SPEECH = {"voice": "ryan", "language": "english", "seed": 1}


@pytest.fixture(scope="module")
def address(engine):
    """host:port of a server that runs in a thread."""
    settings = ServerSettings(api_key=KEY, max_characters=200, max_upload_bytes=10_000)
    with live_server(engine, settings) as address:
        yield address


@pytest.fixture
def post(address):
    """`post(path, **fields)`."""

    def send(path="/v1/audio/speech", stream=False, headers=HEADERS, **fields):
        return requests.post(
            f"http://{address}{path}", json=fields, headers=headers, stream=stream, timeout=60
        )

    return send


@pytest.fixture
def wanted(model):
    """The audio of a text as `SPEECH` describes it, offline, as 16-bit samples."""

    def synthesize(text, frames=None, **options):
        options = {"seed": 1, **options}
        if frames is not None:
            options["sampling"] = {"max_new_tokens": frames + 1}
        each = CustomVoice(text, "ryan", "english", **options)
        return pcm16(model.generate([each])[0].wave)

    return synthesize


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def assert_same_audio(content, wanted):
    got = np.frombuffer(content, "<i2").astype(int)
    assert got.shape == wanted.shape
    assert np.max(np.abs(got - wanted)) <= 1  # of 32768


def test_pcm_is_the_offline_audio(post, wanted):
    answer = post(input="Hello.", response_format="pcm", max_new_tokens=11, **SPEECH)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/pcm"
    assert_same_audio(answer.content, wanted("Hello.", 10))


@pytest.mark.parametrize("stream", [True, False])
def test_wav_has_one_header(post, wanted, stream):
    answer = post(
        input="Hello.", response_format="wav", max_new_tokens=11, **SPEECH, **{"stream": stream}
    )
    assert answer.content[:4] == b"RIFF" and answer.content.count(b"WAVE") == 1
    assert_same_audio(answer.content[44:], wanted("Hello.", 10))


@pytest.mark.parametrize("name", ["mp3", "opus", "flac", "aac"])
def test_compressed_formats_are_complete(post, name):
    import av

    answer = post(input="Hello.", response_format=name, max_new_tokens=11, **SPEECH)
    with av.open(io.BytesIO(answer.content)) as container:
        frames = list(container.decode(audio=0))
    seconds = sum(frame.samples / frame.sample_rate for frame in frames)
    assert 0.799 < seconds < 0.95


def test_plain_stream_arrives_in_chunks(address, wanted):
    with requests.post(
        f"http://{address}/tts/stream",
        json={"text": "Hello there.", "language": "english", "voice": "ryan", "seed": 1},
        headers=HEADERS,
        stream=True,
        timeout=60,
    ) as answer:
        chunks = list(answer.iter_content(chunk_size=None))
    assert len(chunks) > 1
    assert_same_audio(b"".join(chunks), wanted("Hello there.", 50))


def test_server_sent_events_end_with_done(post, wanted):
    answer = post(
        input="Hello.", response_format="pcm", stream_format="sse", max_new_tokens=11, **SPEECH
    )
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line[:6] == "data: "]
    assert [event["type"] for event in events[:-1]] == ["speech.audio.delta"] * (len(events) - 1)
    assert events[-1]["type"] == "speech.audio.done" and events[-1]["frames"] == 10
    audio = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    assert_same_audio(audio, wanted("Hello.", 10))


def test_a_batch_has_a_result_for_each_item(post, wanted, engine):
    items = [
        {"input": "Hello.", "response_format": "pcm", "max_new_tokens": 11, **SPEECH},
        {"input": "Hello.", "voice": "nobody"},
        {"input": "Bye.", "response_format": "wav", "max_new_tokens": 6, **SPEECH},
    ]
    answer = post("/v1/audio/speech/batch", items=items)
    assert answer.status_code == 200, answer.text
    first, bad, last = answer.json()["results"]
    assert_same_audio(base64.b64decode(first["audio"]), wanted("Hello.", 10))
    assert first["frames"] == 10 and first["reason"] == "length"
    assert "unknown speaker" in bad["error"]["message"]
    assert_same_audio(base64.b64decode(last["audio"])[44:], wanted("Bye.", 5))
    assert post("/v1/audio/speech/batch", items=[]).status_code == 400
    # Four rows and eight places in the queue: 20 are too many, and none of them is left behind.
    assert post("/v1/audio/speech/batch", items=20 * items[:1]).status_code == 429
    wait_until(lambda: engine.running == engine.waiting == 0)


def test_a_prebuffer_comes_in_one_piece(post):
    fields = {"input": "Hello.", "response_format": "pcm", "max_new_tokens": 11, **SPEECH}
    answer = post(stream=True, prebuffer_ms=500, **fields)
    first = next(answer.iter_content(chunk_size=None))
    assert 0.5 <= len(first) / 2 / 24000 < 0.5 + 0.32
    assert post(prebuffer_ms=-1, **fields).status_code == 400


def test_events_carry_codes_if_wanted(post, model):
    fields = {"input": "Hello.", "max_new_tokens": 11, "include_codes": True, **SPEECH}
    answer = post(response_format="mp3", stream_format="sse", **fields)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line[:6] == "data: "]
    codes = [frame for event in events for frame in event.get("codes", [])]
    each = CustomVoice("Hello.", "ryan", "english", seed=1, sampling={"max_new_tokens": 11})
    assert codes == model.generate([each])[0].codes.tolist()
    assert b"".join(base64.b64decode(event.get("audio", "")) for event in events)
    refused = post(**fields)
    assert refused.status_code == 400 and "sse" in refused.json()["error"]["message"]


def test_a_client_that_leaves_frees_its_row(post, engine):
    answer = post(stream=True, input="Long text.", response_format="pcm", seed=3)
    next(answer.iter_content(chunk_size=None))
    answer.close()
    wait_until(lambda: engine.running == engine.waiting == 0)


def test_a_client_that_leaves_while_it_waits_is_forgotten(address, engine, monkeypatch):
    monkeypatch.setattr(RowGroup, "free", 0)
    body = json.dumps({"input": "Text.", "voice": "ryan"}).encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        wait_until(lambda: engine.waiting == 1)
    wait_until(lambda: engine.waiting == 0)


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"input": ""}, 400, "input"),
        ({"input": "x" * 201}, 400, "characters"),
        ({"input": "Text.", "voice": "nobody"}, 400, "unknown speaker"),
        ({"input": "Text.", "language": "klingon"}, 400, "unknown language"),
        ({"input": "Text.", "response_format": "exe"}, 400, "response_format"),
        ({"input": "Text.", "speed": 2}, 400, "speed"),
        ({"input": "Text.", "surprise": 1}, 400, "surprise"),
        ({"input": "Text.", "temperature": -1}, 400, "temperature"),
        ({"input": "Text.", "ref_audio": "/etc/passwd"}, 400, "base64"),
        ({"input": "Text.", "ref_audio": "http://localhost/x.wav"}, 400, "base64"),
        ({"input": "Text.", "ref_audio": "A" * 20_000}, 400, "larger"),
        ({"input": "Text.", "ref_audio": "A" * 200_000}, 413, "larger"),
    ],
)
def test_faults_are_one_sentence(post, fields, status, message):
    answer = post(**fields)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_a_giant_body_without_its_length_is_refused(address):
    parts = (b" " * 2**16 for _ in range(32))
    url = f"http://{address}/v1/audio/speech"
    answer = requests.post(url, data=parts, headers=HEADERS, timeout=60)
    assert answer.status_code == 413
    assert "larger" in answer.json()["error"]["message"]


def test_a_full_queue_answers_429(post, engine):
    object.__setattr__(engine.settings, "max_waiting", 0)
    try:
        answer = post(input="Text.", **SPEECH)
    finally:
        object.__setattr__(engine.settings, "max_waiting", 8)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1


def test_keys_and_public_routes(address, post):
    assert post(headers={}, input="Text.").status_code == 401
    for path, status in (
        ("health", 200),
        ("ready", 200),
        ("metrics", 200),
        ("v1/models", 401),
        ("v1/audio/voices", 401),
    ):
        assert requests.get(f"http://{address}/{path}", timeout=10).status_code == status
    with pytest.raises(InvalidStatus, match="403|401"):
        connect(f"ws://{address}/v1/audio/speech/stream")
    voices = requests.get(f"http://{address}/v1/audio/voices", headers=HEADERS, timeout=10).json()
    assert "ryan" in voices["voices"] and voices["uploaded_voices"] == []
    text = requests.get(f"http://{address}/metrics", timeout=10).text
    for name in ("first_audio_seconds_bucket", "queue_seconds_sum", "rows_in_use 0.0", "frames"):
        assert f"qtts_{name}" in text


def test_requests_of_one_client_are_spoken_in_order(post, engine):
    ends = []

    def speak(number, frames):
        post(
            input="Text.",
            response_format="pcm",
            headers={**HEADERS, "X-Client-Id": "me"},
            max_new_tokens=frames + 1,
        )
        ends.append(number)

    threads = [
        threading.Thread(target=speak, args=(i, frames)) for i, frames in enumerate((40, 20, 2))
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert ends == [0, 1, 2]


def test_socket_speaks_arriving_text_and_is_interrupted(address, model, engine):
    url = f"ws://{address}/v1/audio/speech/stream"
    with connect(url, additional_headers=HEADERS) as websocket:

        def send(kind, **fields):
            websocket.send(json.dumps({"type": kind, **fields}))

        def receive():
            audio = b""
            while isinstance(message := websocket.recv(timeout=30), bytes):
                audio += message
            return json.loads(message), audio

        send("session.config", **SPEECH, max_new_tokens=31)
        for part in ("Some text", " that comes", " in parts."):
            send("input.text", text=part)
            time.sleep(0.02)
        send("input.done")
        assert receive()[0] == {"type": "audio.start", "utterance": 0, "sample_rate": 24000}
        done, audio = receive()
        assert done["type"] == "audio.done" and done["reason"] in ("stop", "length")
        whole = CustomVoice(
            "Some text that comes in parts.",
            "ryan",
            "english",
            seed=1,
            stream_text=True,
            sampling={"max_new_tokens": 31},
        )
        assert_same_audio(audio, pcm16(model.generate([whole])[0].wave))

        send("input.text", text="This is interrupted.")
        assert receive()[0]["type"] == "audio.start"
        send("input.cancel")
        assert receive()[0]["reason"] == "cancelled"
        send("nonsense")
        assert receive()[0]["type"] == "error"
        send("input.text", text="And on it goes.")
        send("session.close")
        kinds = [receive()[0]["type"] for _ in range(3)]
        assert kinds == ["audio.start", "audio.done", "session.done"]
    wait_until(lambda: engine.running == engine.waiting == 0)


def test_wav_reads_as_audio(post):
    answer = post(input="Hello.", response_format="wav", max_new_tokens=11, **SPEECH)
    wave, rate = soundfile.read(io.BytesIO(answer.content))
    assert rate == 24000 and len(wave) == 10 * 1920


def test_the_load_bench_measures_this_server(address, monkeypatch):
    # The others exceed the limits here.
    monkeypatch.setattr(serve_requests, "TEXTS", ("Short.", "Texts."))
    with Clients(f"http://{address}", HEADERS, processes=2) as clients:
        figures = bench.measure(clients, rate=50.0, count=4, seed=0)
        assert figures["failed"] == 0 and figures["audio_s_per_s"] > 0
        assert figures["first_byte_ms"]["p50"] <= figures["end_ms"]["p50"]
        closed = bench.measure_closed(clients, 3, 4, 0)
        assert closed["failed"] == 0 and closed["streams"] == 3 and closed["requests"] == 4
    rows = section({"machine": "m", "about": "a.", "runs": [figures, closed]})
    assert rows[4].startswith("| 50 a second | 1 |") and rows[5].startswith("| 3 at once | 1 |")
    with Clients(f"http://{address}", {}, processes=1) as clients:
        assert bench.measure_closed(clients, 1, 2, 0)["faults"] == {"status 401": 2}
