"""Run by test_served_on_mesh.py in a process with as many virtual devices as the mesh has.

    python -m tests.support.served_on_mesh CHECKPOINT DATAxMODEL FILE

Serves a checkpoint on a mesh over HTTP, speaks the lines of a batch there, and prints what differs
from the speech of one device in a file of `spoken_alone`, and how many programs were compiled after
the server was ready.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import requests

from qtts_jax import QwenTTS
from qtts_jax.serving.encoders import pcm16
from qtts_jax.serving.engine import Engine
from qtts_jax.serving.http.settings import ServerSettings
from qtts_jax.serving.settings import EngineSettings
from qtts_jax.serving.whole import WholeSpeech
from qtts_jax.sharding import make_mesh
from qtts_jax.tts.voices import CustomVoice
from tests.support.live_server import live_server

TEXTS = ("Hi.", "A longer text than that.", "Three.")
COMPILED = "/jax/core/compile/backend_compile_duration"


def load(checkpoint, mesh):
    tts = QwenTTS.from_pretrained(checkpoint, dtype="float32", mesh=mesh)
    codec = tts.speech_tokenizer
    if codec.needs_voice:
        codec.set_flow(steps=2)
        codec.voices = {"default": codec.placeholder_voice()}
    return tts


def tokens(i):
    """`max_new_tokens` of a text: they end at different times."""
    return 6 + 5 * i


def request(i):
    sampling = {"max_new_tokens": tokens(i)}
    return CustomVoice(TEXTS[i], "ryan", "english", seed=i, sampling=sampling)


def spoken_alone(tts, file):
    """Save codes and audio of all texts."""
    found = {}
    for i, speech in enumerate(tts.generate([request(i) for i in range(len(TEXTS))])):
        found |= {f"codes{i}": speech.codes, f"wave{i}": pcm16(speech.wave)}
    np.savez(file, **found)


def served(tts):
    """The audio of all texts, whole, and how many programs were compiled for it."""
    codec = tts.speech_tokenizer
    settings = EngineSettings(
        rows=(3,),  # on two devices four
        chunk_frames=(1,),
        prefill_rows=(1,),
        max_prompt=32,
        max_text=64,
        max_seconds=20 * codec.samples_per_frame / codec.sample_rate,
    )
    engine, compiled = Engine(tts, settings), []
    engine.start()
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(seconds) if event == COMPILED else None
    )

    def spoken(i):
        fields = {"input": TEXTS[i], "voice": "ryan", "language": "english", "seed": i}
        fields |= {"max_new_tokens": tokens(i), "response_format": "pcm", "stream": False}
        answer = requests.post(f"http://{address}/v1/audio/speech", json=fields, timeout=120)
        assert answer.status_code == 200, answer.text
        return np.frombuffer(answer.content, "<i2")

    with live_server(engine, ServerSettings()) as address, ThreadPoolExecutor(3) as threads:
        found = list(threads.map(spoken, range(len(TEXTS))))
    count = len(compiled)
    engine.stop()
    return found, count


def main():
    checkpoint, sizes, file = sys.argv[1:]
    wanted = np.load(file)
    tts = load(checkpoint, make_mesh(*map(int, sizes.split("x"))))
    found, compiled = served(tts)
    lines = dict(WholeSpeech(tts, 2).speak((i, tts.plan(request(i))) for i in range(len(TEXTS))))
    pairs = [(wave, wanted[f"wave{i}"]) for i, wave in enumerate(found)]
    report = {
        "devices": len(tts.params["talker"]["codec_head"]["kernel"].devices()),
        "compiled": compiled,
        "shapes": all(a.shape == b.shape for a, b in pairs),
        "steps": max(int(np.abs(a.astype(int) - b).max()) for a, b in pairs),  # of 32768
        "lines": all(np.array_equal(s.codes, wanted[f"codes{i}"]) for i, s in lines.items()),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
