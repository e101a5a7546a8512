"""A 25 Hz checkpoint behind the HTTP server: every route gives the offline codes and audio."""

import base64
import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from websockets.sync.client import connect

from qtts_jax import QwenTTS
from qtts_jax.serving.encoders import pcm16
from qtts_jax.serving.engine import Engine
from qtts_jax.serving.http.settings import ServerSettings
from qtts_jax.serving.settings import EngineSettings
from qtts_jax.tts.voices import CustomVoice, VoiceClone, VoiceDesign
from tests.support.live_server import live_server
from tests.support.recording import recording

pytestmark = pytest.mark.slow  # a minute where nothing is in the compilation cache

FRAMES = 37
PRESET = 1077  # codec id of "ryan" in the golden CustomVoice checkpoint
CALM = "A calm voice."


@pytest.fixture(scope="module")
def model(converted_25hz):
    """A checkpoint that clones, with a preset speaker and designed voices beside."""
    given = QwenTTS.from_pretrained(converted_25hz("base"), dtype="float32")
    talker = dataclasses.replace(given.config.talker, speakers=(("ryan", PRESET),))
    types = ("custom_voice", "voice_design")
    config = dataclasses.replace(given.config, talker=talker, further_types=types)
    codec = given.speech_tokenizer
    codec.set_flow(steps=2)
    # As long as that of the recording below, once padded.
    silence = codec.placeholder_voice()
    codec.voices = {"default": dataclasses.replace(silence, ref_mel=silence.ref_mel[:100])}
    return QwenTTS(config, given.params, codec, given.text_tokenizer, given.defaults)


@pytest.fixture(scope="module")
def address(model):
    codec = model.speech_tokenizer
    settings = EngineSettings(
        rows=(2,),
        prefill_rows=(1,),
        chunk_frames=(1,),
        max_prompt=64,
        max_text=64,
        max_seconds=FRAMES * codec.samples_per_frame / codec.sample_rate,
        max_reference_seconds=0.9,
    )
    engine = Engine(model, settings)
    engine.start()
    with live_server(engine, ServerSettings()) as address:
        yield address
    engine.stop()


def assert_same_audio(content, wave):
    got, wanted = np.frombuffer(content, "<i2").astype(int), pcm16(wave).astype(int)
    assert got.shape == wanted.shape
    assert np.max(np.abs(got - wanted)) <= 1  # of 32768


def streamed(model, request):
    return np.concatenate(list(model.stream(request, [8])))


@pytest.fixture
def awaited(model, monkeypatch):
    """Blocks that each utterance of the server awaits after a block, None for all.

    The small decoder's audio is the same up to rounding, so it does not show which.
    """
    seen, given = [], model.speech_tokenizer.host_decoder

    def host_decoder(voice, *, look_ahead, **options):
        seen.append(look_ahead)
        return given(voice, look_ahead=look_ahead, **options)

    monkeypatch.setattr(model.speech_tokenizer, "host_decoder", host_decoder)
    return seen


def test_all_routes_speak_as_offline(model, address, awaited, compiled):
    spoken = {"language": "english", "sampling": {"max_new_tokens": 30}}
    preset = CustomVoice("Hello there.", "ryan", seed=1, **spoken)
    design = VoiceDesign("Another text.", CALM, seed=2, **spoken)
    longest = {"language": "english", "sampling": {"max_new_tokens": FRAMES + 1}}
    plain = CustomVoice("Plain.", "ryan", seed=3, **longest)
    arriving = CustomVoice("Text in parts.", "ryan", seed=4, stream_text=True, **longest)
    whole = model.generate([preset, design])
    streams = [streamed(model, request) for request in (preset, design, plain, arriving)]

    url = f"http://{address}"
    common = {"language": "english", "max_new_tokens": 30, "response_format": "pcm"}
    custom = {"input": "Hello there.", "voice": "ryan", "seed": 1, **common}
    described = {"input": "Another text.", "voice": "design", "instructions": CALM, "seed": 2}
    described |= common

    def post(path, **fields):
        answer = requests.post(f"{url}{path}", json=fields, timeout=120)
        assert answer.status_code == 200, answer.text
        return answer

    compiled.clear()
    speech = "/v1/audio/speech"
    with ThreadPoolExecutor(2) as threads:  # rows at different places of their blocks
        first = threads.submit(post, speech, **custom)
        second = threads.submit(post, speech, **described)
        assert_same_audio(first.result().content, streams[0])
        assert_same_audio(second.result().content, streams[1])
    assert awaited == [1, 1]
    assert_same_audio(post(speech, **custom, stream=False).content, whole[0].wave)
    results = post(f"{speech}/batch", items=[custom, described]).json()["results"]
    for result, wanted in zip(results, whole, strict=True):
        assert_same_audio(base64.b64decode(result["audio"]), wanted.wave)
    assert awaited == [1, 1, None, None, None]
    fields = {"text": "Plain.", "voice": "ryan", "language": "english", "seed": 3}
    assert_same_audio(post("/tts/stream", **fields).content, streams[2])

    text = post(speech, **custom, stream_format="sse", include_codes=True).text
    events = [json.loads(line[6:]) for line in text.splitlines() if line[:6] == "data: "]
    codes = [frame for event in events for frame in event.get("codes", [])]
    np.testing.assert_array_equal(np.array(codes)[:, 0], whole[0].codes)
    audio = b"".join(base64.b64decode(event.get("audio", "")) for event in events)
    assert_same_audio(audio, streams[0])

    with connect(f"ws://{address}/v1/audio/speech/stream") as websocket:
        config = {"voice": "ryan", "language": "english", "seed": 4, "max_new_tokens": FRAMES + 1}
        parts = [{"type": "input.text", "text": part} for part in ("Text ", "in ", "parts.")]
        for message in ({"type": "session.config", **config}, *parts, {"type": "input.done"}):
            websocket.send(json.dumps(message))
        assert json.loads(websocket.recv(timeout=60))["type"] == "audio.start"
        audio = b""
        while isinstance(message := websocket.recv(timeout=60), bytes):
            audio += message
        assert json.loads(message)["type"] == "audio.done"
    assert_same_audio(audio, streams[3])
    assert compiled == []


def test_a_recording_is_cloned_with_the_voice_of_its_decoder(model, address, compiled):
    pytest.importorskip("onnxruntime")
    content, words = recording(0.7), "Some words."
    (item,) = model.create_voice_clone_prompt(content, words)
    request = VoiceClone("Hi.", item, seed=1, sampling={"max_new_tokens": 20})
    stream, whole = streamed(model, request), model.generate([request])[0].wave
    compiled.clear()
    fields = {"input": "Hi.", "response_format": "pcm", "seed": 1, "max_new_tokens": 20}
    url = f"http://{address}/v1/audio"
    form = {"name": "mine", "ref_text": words}
    answer = requests.post(f"{url}/voices", data=form, files={"audio": content}, timeout=60)
    assert answer.status_code == 201, answer.text
    uploaded = requests.post(f"{url}/speech", json={"voice": "mine", **fields}, timeout=60)
    sent = {"ref_audio": base64.b64encode(content).decode(), "ref_text": words, "stream": False}
    direct = requests.post(f"{url}/speech", json={**sent, **fields}, timeout=60)
    assert compiled == []
    assert_same_audio(uploaded.content, stream)
    assert_same_audio(direct.content, whole)
