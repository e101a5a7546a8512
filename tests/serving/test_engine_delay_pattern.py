"""The serving engine with a code predictor of the delay pattern, whose rows run ahead."""

import dataclasses
import time

import numpy as np
import pytest

from qtts_jax import QwenTTS
from qtts_jax.serving.engine import Engine
from qtts_jax.serving.settings import EngineSettings
from qtts_jax.serving.utterance import EventQueue
from qtts_jax.tts.voices import CustomVoice

SETTINGS = EngineSettings(
    rows=(1, 4), chunk_frames=(1, 4), max_prompt=64, max_text=64, max_seconds=4.0, max_waiting=8
)


@pytest.mark.slow
def test_rows_at_unlike_frames_and_arriving_text_give_the_offline_codes(model):
    talker = model.config.talker
    predictor = dataclasses.replace(talker.code_predictor, pattern="delay")
    talker = dataclasses.replace(talker, code_predictor=predictor)
    config = dataclasses.replace(model.config, talker=talker)
    parts = model.params, model.speech_tokenizer, model.text_tokenizer, model.defaults
    delayed = QwenTTS(config, *parts)

    def request(text, frames, seed, **options):
        sampling = {"max_new_tokens": frames + 1}
        voice = CustomVoice(text, "ryan", "english", seed=seed, sampling=sampling, **options)
        return delayed.prepare(voice)

    requests = [
        request("Hi.", 5, 1),
        request("A longer text than that.", 40, 2, stream_text=True),
        request("Three.", 1, 3),
        request("The fourth one.", 26, 4),
    ]
    whole = request("A text that comes in parts, some of them late.", 45, 5, stream_text=True)
    wanted = [delayed.synthesize([each])[0] for each in (*requests, whole)]
    engine = Engine(delayed, SETTINGS)
    engine.start()
    queues = [EventQueue() for _ in wanted]
    for each, events in zip(requests, queues, strict=False):
        engine.submit(each, events)
        time.sleep(0.01)
    # The first text id is in the prompt; all others are appended.
    trailing = whole.prompt.trailing
    opened = dataclasses.replace(
        whole, prompt=dataclasses.replace(whole.prompt, trailing=trailing[:0])
    )
    utterance = engine.submit(opened, queues[-1], open_text=True)
    for i in range(0, len(trailing), 3):
        engine.append_text(utterance, trailing[i : i + 3].tolist())
        time.sleep(0.01)
    engine.end_text(utterance)
    for events, speech in zip(queues, wanted, strict=True):
        codes = np.concatenate([chunk.codes for chunk in events.chunks()])
        np.testing.assert_array_equal(codes, speech.codes)
    engine.stop()
