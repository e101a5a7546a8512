"""Uploaded voices: encoded once, spoken as offline, capped, kept across restarts."""

import base64
import dataclasses

import numpy as np
import pytest
import requests

from qtts_jax.errors import RequestError
from qtts_jax.serving.encoders import pcm16
from qtts_jax.serving.http.settings import ServerSettings
from qtts_jax.serving.voices import VoiceStore
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
from qtts_jax.tts.voices import VoiceClone
from tests.support.live_server import live_server
from tests.support.recording import recording

WORDS = "Some words."


@pytest.mark.slow
def test_an_uploaded_voice_speaks_as_offline(clones, tmp_path, compiled):
    content = recording(0.7)
    item = clones.tts.create_voice_clone_prompt(content, WORDS)[0]
    compiled.clear()
    spoken = {"input": "Hi.", "response_format": "pcm", "seed": 1, "max_new_tokens": 9}
    with live_server(clones, ServerSettings(voices=tmp_path)) as address:
        voices, speech = f"http://{address}/v1/audio/voices", f"http://{address}/v1/audio/speech"
        form = {"name": "mine", "ref_text": WORDS}
        answer = requests.post(voices, data=form, files={"audio": content}, timeout=60)
        assert answer.status_code == 201, answer.text
        twice = requests.post(voices, data=form, files={"audio": content}, timeout=60)
        assert twice.status_code == 400 and "already" in twice.text
        for faulty, message in ((recording(1.2), "seconds"), (b"no audio" * 9, "format")):
            form["name"] = "other"
            answer = requests.post(voices, data=form, files={"audio": faulty}, timeout=60)
            assert answer.status_code == 400 and message in answer.text
        uploaded = requests.post(speech, json={"voice": "mine", **spoken}, timeout=60)
        sent = {"ref_audio": base64.b64encode(content).decode(), "ref_text": WORDS}
        direct = requests.post(speech, json={**sent, **spoken}, timeout=60)
    assert compiled == []
    with live_server(clones, ServerSettings(voices=tmp_path)) as address:
        voices = f"http://{address}/v1/audio/voices"
        assert requests.get(voices, timeout=60).json()["uploaded_voices"] == ["mine"]
        assert requests.delete(f"{voices}/mine", timeout=60).status_code == 200
        assert requests.delete(f"{voices}/mine", timeout=60).status_code == 404
    assert list(tmp_path.iterdir()) == []
    assert uploaded.content == direct.content
    offline = VoiceClone("Hi.", item, seed=1, sampling={"max_new_tokens": 9})
    wanted = pcm16(clones.tts.generate([offline])[0].wave).astype(int)
    got = np.frombuffer(uploaded.content, "<i2").astype(int)
    assert got.shape == wanted.shape and np.max(np.abs(got - wanted)) <= 1


def test_a_store_keeps_voices_and_checks_names(tmp_path):
    codes = np.arange(32, dtype=np.int32).reshape(2, 16)
    vector = np.ones(4, np.float32)
    voices = {
        "icl": VoiceClonePromptItem(codes, vector, False, True, "Wörter"),
        "timbre": VoiceClonePromptItem(None, vector, True, False),
    }
    decoder = ReferenceVoice(3 * vector, np.ones((5, 2), np.float32))
    voices["timbre"] = dataclasses.replace(voices["timbre"], decoder_voice=decoder)
    store = VoiceStore(tmp_path, 2, ["ryan"])
    for name, voice in voices.items():
        store.add(name, voice)
    again = VoiceStore(tmp_path, 3, ["ryan"])
    assert again.names() == ["icl", "timbre"]
    np.testing.assert_array_equal(again.get("icl").ref_code, codes)
    assert again.get("icl").ref_text == "Wörter" and again.get("timbre").ref_code is None
    found = again.get("timbre").decoder_voice
    np.testing.assert_array_equal(found.xvector, decoder.xvector)
    np.testing.assert_array_equal(found.ref_mel, decoder.ref_mel)
    assert again.get("icl").decoder_voice is None
    store.remove("timbre")  # by another server
    store.add("timbre", VoiceClonePromptItem(None, 2 * vector, True, False))
    assert again.get("timbre").ref_spk_embedding[0] == 2.0
    store.remove("timbre")
    assert again.names() == ["icl"] and again.get("timbre") is None
    store.add("timbre", voices["timbre"])
    assert again.get("../icl") is None and again.get("nobody") is None
    for name, message in (
        ("Ryan", "already"),
        ("icl", "already"),
        ("Icl", "already"),
        ("../x", "letters"),
    ):
        with pytest.raises(RequestError, match=message):
            again.check_name(name)
    with pytest.raises(RequestError, match="most allowed"):
        store.check_name("third")
