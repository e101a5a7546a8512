"""Request objects: `generate` and `stream` against the official verbs, and what is refused."""

import dataclasses

import numpy as np
import pytest

import qtts_jax
from qtts_jax import CustomVoice, QwenTTS, Speech, VoiceClone, VoiceDesign, embedded
from qtts_jax.errors import CheckpointError, RequestError, TextError

FEW = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def model(tts):
    """A checkpoint of two types."""
    base = tts("base", exact_reference=False)
    config = dataclasses.replace(base.config, further_types=("voice_design",))
    parts = base.params, base.speech_tokenizer, base.text_tokenizer, base.defaults
    return QwenTTS(config, *parts)


@pytest.fixture(scope="module")
def voice(model, detweights):
    recording = detweights.wave(7, "recording", 9000, 24000), 24000
    return model.create_voice_clone_prompt(recording, "A reference.")[0]


def test_requests_of_several_kinds_are_one_batch(model, voice):
    requests = [
        VoiceClone("Short one.", voice, "english", seed=1, sampling=FEW),
        VoiceDesign("Another one.", "calm", "english", stream_text=True, seed=2, sampling=FEW),
    ]
    speeches = model.generate(requests)
    assert all(isinstance(speech, Speech) for speech in speeches)
    clones, _ = model.generate_voice_clone(
        "Short one.", "english", voice_clone_prompt=voice, seed=1, **FEW
    )
    designs, _ = model.generate_voice_design(
        "Another one.", "calm", "english", non_streaming_mode=False, seed=2, **FEW
    )
    for speech, wave in zip(speeches, (clones[0], designs[0]), strict=True):
        np.testing.assert_allclose(speech.wave, wave, rtol=0, atol=1e-5)


def test_a_stream_of_a_request_is_the_whole_audio(model, voice):
    request = VoiceClone("Short one.", voice, seed=1, sampling=FEW)
    streamed = np.concatenate(list(model.stream(request, (1, 3))))
    np.testing.assert_allclose(streamed, model.generate([request])[0].wave, rtol=0, atol=1e-5)
    parts = dataclasses.replace(request, text=iter(["Short ", "one."]))
    np.testing.assert_allclose(
        np.concatenate(list(model.stream(parts))), streamed, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (CustomVoice("Hi.", "ryan"), RequestError, "base checkpoint.*not custom_voice"),
        (VoiceDesign("Hi.", "calm", "klingon"), RequestError, "unknown language"),
        (VoiceDesign("Hi.", "calm", seed=-1), RequestError, "seed must be"),
        (VoiceDesign("Hi.", "calm", sampling={"top_q": 1}), RequestError, "'top_q'"),
        (VoiceDesign(" ", "calm"), TextError, "empty"),
        (VoiceDesign(iter(["Hi."]), "calm"), TextError, "must be a string"),
        (VoiceClone("Hi.", "ada"), RequestError, "create_voice_clone_prompt"),
        ("Hi.", RequestError, "must be a CustomVoice, VoiceDesign or VoiceClone, not str"),
    ],
)
def test_a_bad_request_is_one_clear_error(model, request_, error, message):
    with pytest.raises(error, match=message):
        model.generate([request_])
    if "must be a string" not in message:
        with pytest.raises(error, match=message):
            model.stream(request_)


@pytest.mark.parametrize("kind", [CustomVoice, VoiceDesign, VoiceClone])
def test_requests_are_frozen_and_share_their_options(kind):
    names = {field.name for field in dataclasses.fields(kind)}
    assert names >= {"text", "language", "stream_text", "seed", "sampling"}
    assert kind.__dataclass_params__.frozen


def test_the_package_exports_the_public_objects():
    for name in qtts_jax.__all__:
        assert getattr(qtts_jax, name).__name__ == name


def test_no_argument_loads_the_embedded_checkpoint():
    tts = QwenTTS.from_pretrained()
    assert tts.describe() == QwenTTS.from_pretrained(embedded.DIRECTORY).describe()


def test_an_unconverted_checkpoint_names_the_convert_command(released):
    name = "Qwen/Qwen3-TTS-12Hz-0.6B-Base"
    with pytest.raises(CheckpointError, match=f"`python -m convert {name} DESTINATION`"):
        QwenTTS.from_pretrained(name)
    with pytest.raises(CheckpointError, match=f"`python -m convert {released / 'base'} DEST"):
        QwenTTS.from_pretrained(released / "base")
    with pytest.raises(CheckpointError, match="no/such/folder is not a checkpoint folder"):
        QwenTTS.from_pretrained("no/such/folder")
