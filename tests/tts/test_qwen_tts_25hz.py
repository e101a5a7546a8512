"""25 Hz checkpoints through the public object: whole, streamed, cloned, and what can be wrong."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from qtts_jax import QwenTTS, ReferenceVoice
from qtts_jax.errors import CheckpointError, RequestError
from qtts_jax.speech_tokenizer.voice_files import write_voices
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem

SAMPLES = 10
OPTIONS = {"max_new_tokens": 17, "seed": 5}


def load(folder):
    tts = QwenTTS.from_pretrained(folder, dtype="float32")
    tts.speech_tokenizer.set_flow(steps=3)
    return tts


@pytest.fixture(scope="module")
def custom(converted_25hz):
    return load(converted_25hz("custom_voice"))


@pytest.fixture(scope="module")
def base(converted_25hz):
    return load(converted_25hz("base"))


@pytest.fixture(scope="module")
def voice(golden):
    file = golden("tok25_decode")
    return ReferenceVoice(file["xvectors"][0], file["ref_mels"][0])


@pytest.fixture
def exact(custom, monkeypatch):
    """Streams wait for all that a block depends on."""
    monkeypatch.setattr(custom.speech_tokenizer, "look_ahead", None)
    return custom


def test_speech_is_codes_of_one_book_and_their_audio(custom, voice):
    request = custom.prepare_custom_voice("Hello.", "ryan", decoder_voice=voice, **OPTIONS)
    (speech,) = custom.synthesize([request])
    assert speech.codes.shape == (16,)
    assert speech.codes.dtype == np.int32
    (wave,), rate = custom.generate_custom_voice("Hello.", "ryan", decoder_voice=voice, **OPTIONS)
    assert rate == custom.sample_rate == 24000
    np.testing.assert_array_equal(wave, speech.wave)
    assert wave.shape == (16 * SAMPLES,)
    decoded, _ = custom.speech_tokenizer.decode(speech.codes, voice, seed=OPTIONS["seed"])
    np.testing.assert_allclose(wave, decoded[0], atol=1e-6)


@pytest.mark.parametrize("chunks", [(1,), (5, 2), (64,)])
def test_an_exact_stream_is_the_whole_audio(exact, voice, chunks):
    options = {"decoder_voice": voice, **OPTIONS}
    whole = exact.generate_custom_voice("Hello.", "ryan", **options)[0][0]
    streamed = list(exact.stream_custom_voice("Hello.", "ryan", chunk_frames=chunks, **options))
    assert all(len(chunk) for chunk in streamed)
    assert np.abs(np.concatenate(streamed) - whole).max() < 1e-5


def test_text_may_arrive_in_parts(exact, voice):
    text, options = "Hello there you.", {"decoder_voice": voice, **OPTIONS}
    whole = exact.generate_custom_voice(text, "ryan", non_streaming_mode=False, **options)[0][0]
    parts = (text[i : i + 4] for i in range(0, len(text), 4))
    streamed = np.concatenate(list(exact.stream_custom_voice(parts, "ryan", **options)))
    assert np.abs(streamed - whole).max() < 1e-5


def test_by_default_a_stream_looks_one_block_ahead(custom, voice):
    block = custom.speech_tokenizer.first_chunks[1]
    assert custom.speech_tokenizer.first_chunks == (2 * block, block)
    options = {"decoder_voice": voice, **OPTIONS}
    streamed = list(custom.stream_custom_voice("Hello.", "ryan", **options))
    assert sum(map(len, streamed)) == 16 * SAMPLES
    # Two blocks give the first less the vocoder's right context, then each gives one.
    assert 0 < len(streamed[0]) <= block * SAMPLES
    assert all(len(chunk) == block * SAMPLES for chunk in streamed[1:-1])


def test_a_stream_that_ends_by_itself_is_whole(converted_25hz, voice):
    """End of speech in the middle of a block, with the next chunk already under way."""
    tts = load(converted_25hz("custom_voice", (("codec_eos_token_id", 62),)))
    tts.speech_tokenizer.look_ahead = None
    options = {"do_sample": False, "decoder_voice": voice, "max_new_tokens": 30}
    arguments = ("Hello there, this is a test.", "ryan", "english")
    options |= {"non_streaming_mode": False, "seed": 0}
    (speech,) = tts.synthesize([tts.prepare_custom_voice(*arguments, **options)])
    assert len(speech.wave) == 5 * SAMPLES  # the golden case "ends"
    assert speech.ended
    streamed = list(tts.stream_custom_voice(*arguments, **options, chunk_frames=(2,)))
    assert np.abs(np.concatenate(streamed) - speech.wave).max() < 1e-5
    assert all(chunk.flags.writeable for chunk in streamed)


def test_a_clone_speaks_with_the_voice_of_its_recording(base, detweights):
    pytest.importorskip("onnxruntime")
    recording = (detweights.wave(7, "clone", 9000, 24000), 24000)
    (item,) = base.create_voice_clone_prompt(recording, "What I said.")
    assert item.ref_code.shape == (-(-6000 // 640),)
    np.testing.assert_array_equal(
        item.decoder_voice.ref_mel, base.speech_tokenizer.reference_voice(recording).ref_mel
    )
    options = {"max_new_tokens": 7, "seed": 1}
    whole = base.generate_voice_clone("Hi.", voice_clone_prompt=item, **options)[0][0]
    # The reference is decoded in front of the speech and cut off again.
    assert whole.shape == (6 * SAMPLES,)
    request = base.prepare_voice_clone("Hi.", item, **options)
    np.testing.assert_array_equal(request.reference[:, 0], item.ref_code)
    joined = np.concatenate([item.ref_code, base.synthesize([request])[0].codes])
    decoded, _ = base.speech_tokenizer.decode(joined, item.decoder_voice, seed=1)
    np.testing.assert_allclose(whole, decoded[0][len(item.ref_code) * SAMPLES :], atol=1e-6)
    streamed = np.concatenate(
        list(base.stream_voice_clone("Hi.", voice_clone_prompt=item, **options))
    )
    assert streamed.shape == whole.shape


def test_reference_codes_of_one_codebook_are_checked(base, voice):
    width = base.config.talker.transformer.width
    codes = np.arange(7)
    item = VoiceClonePromptItem(codes, np.zeros(width), False, True, "Words.", voice)
    assert base.prepare_voice_clone("Hi.", item, seed=1).reference.shape == (7, 1)
    for wrong in (codes.reshape(1, 7), codes + base.config.talker.codebook_size):
        with pytest.raises(RequestError, match="ref_code must|codes must lie in"):
            base.prepare_voice_clone("Hi.", dataclasses.replace(item, ref_code=wrong))


def test_a_clone_may_bring_the_decoders_voice(base, voice, detweights):
    recording = (detweights.wave(7, "clone", 9000, 24000), 24000)
    items = base.create_voice_clone_prompt(recording, None, True, decoder_voice=voice)
    assert items[0].ref_code is None
    np.testing.assert_array_equal(items[0].decoder_voice.xvector, voice.xvector)
    with pytest.raises(RequestError, match="decoder_voice belongs to the recording"):
        base.generate_voice_clone("Hi.", voice_clone_prompt=items, decoder_voice=voice)
    wrong = ReferenceVoice(voice.xvector[:3], voice.ref_mel)
    with pytest.raises(RequestError, match="x-vector must have the shape"):
        base.create_voice_clone_prompt(recording, None, True, decoder_voice=wrong)


def test_preset_speakers_have_voices_in_the_checkpoint(converted_25hz, tmp_path, voice):
    folder = tmp_path / "checkpoint"
    shutil.copytree(converted_25hz("custom_voice"), folder)
    write_voices(folder / "speech_tokenizer", {"ryan": voice})
    tts = load(folder)
    assert tts.prepare_custom_voice("Hi.", "RYAN", seed=1).decoder_voice.xvector.shape == (20,)
    with pytest.raises(RequestError, match="does not know the voice of eric"):
        tts.prepare_custom_voice("Hi.", "eric", seed=1)


def test_a_missing_voice_is_refused_before_any_work(custom, base, voice):
    with pytest.raises(RequestError, match=r"voice of ryan: give an x-vector and a reference mel"):
        custom.generate_custom_voice("Hi.", "ryan")
    with pytest.raises(RequestError, match="does not know the voice of ryan"):
        custom.stream_custom_voice("Hi.", "ryan")
    with pytest.raises(RequestError, match="decoder_voice has 2 entries for 3 texts"):
        custom.generate_custom_voice(["a", "b", "c"], "ryan", decoder_voice=[voice, voice])
    (item,) = base.create_voice_clone_prompt(
        (np.full(9000, 0.1, np.float32), 24000), None, True, decoder_voice=voice
    )
    with pytest.raises(RequestError, match="does not know the voice"):
        base.generate_voice_clone(
            "Hi.", voice_clone_prompt=dataclasses.replace(item, decoder_voice=None)
        )


def test_a_12hz_checkpoint_refuses_a_decoders_voice(tts, voice):
    with pytest.raises(RequestError, match="decodes without a voice"):
        tts("custom_voice").generate_custom_voice("Hi.", "ryan", decoder_voice=voice)


def test_talker_and_tokenizer_of_different_families_are_refused(
    converted, converted_25hz, tmp_path
):
    folder = tmp_path / "mixed"
    shutil.copytree(converted("custom_voice"), folder)
    shutil.rmtree(folder / "speech_tokenizer")
    shutil.copytree(
        converted_25hz("custom_voice") / "speech_tokenizer", folder / "speech_tokenizer"
    )
    with pytest.raises(CheckpointError, match="16 codebooks but the speech tokenizer has 1"):
        QwenTTS.from_pretrained(folder)


def test_a_talker_of_more_codes_than_the_decoder_knows_is_refused(converted_25hz, tmp_path):
    folder = shutil.copytree(converted_25hz("custom_voice"), tmp_path / "mixed")
    config = json.loads((folder / "config.json").read_text())
    config["talker_config"]["vocab_size"] += 33  # 64 + 33 codes, one more than the decoder's
    (folder / "config.json").write_text(json.dumps(config))
    message = (
        "the talker makes codes 0 ... 96 but the decoder of the speech tokenizer knows 0 ... 95"
    )
    with pytest.raises(CheckpointError, match=re.escape(message)):
        QwenTTS.from_pretrained(folder)


def test_a_25hz_checkpoint_is_described(custom):
    assert custom.describe()["codes"].startswith("1 codebook of 64")
