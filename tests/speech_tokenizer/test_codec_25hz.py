"""The public 25 Hz tokenizer: official results, streams, voices and bad input."""

import dataclasses
import json
import shutil
import warnings

import numpy as np
import pytest

from qtts_jax import SpeechTokenizer
from qtts_jax.configs.presets import tiny_tokenizer_25hz, tokenizer_25hz
from qtts_jax.configs.tokenizer_12hz import Quirks12Hz
from qtts_jax.configs.tokenizer_25hz import Quirks25Hz
from qtts_jax.dsp.kaldi_fbank import fbank
from qtts_jax.dsp.sox_norm import normalize_peak
from qtts_jax.errors import AudioError, CheckpointError, ConfigError, RequestError
from qtts_jax.speech_tokenizer.codec_25hz import SpeechTokenizer25Hz
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.speech_tokenizer.voice_files import write_voices
from tests.support import tiny_onnx
from tests.support.checkpoint_25hz import MATRIX

SEED, RATE, CODE, SAMPLES = 1234, 16000, 640, 10


@pytest.fixture(scope="module")
def official(converted):
    """The golden tokenizer."""
    return SpeechTokenizer.from_pretrained(converted("tokenizer_25hz"), exact_reference=True)


@pytest.fixture(scope="module")
def tokenizer(converted_25hz):
    """A smaller one with two network evaluations, so that an exact stream starts soon."""
    loaded = SpeechTokenizer.from_pretrained(converted_25hz("custom_voice"))
    made = SpeechTokenizer.from_params(loaded.config, loaded.params)
    made.set_flow(steps=3)
    return made


@pytest.fixture(scope="module")
def voices(golden):
    file = golden("tok25_decode")
    return [ReferenceVoice(file["xvectors"][i], file["ref_mels"][i]) for i in range(2)]


@pytest.fixture(scope="module")
def waves(golden, detweights):
    file = golden("tok25_encode")
    return [detweights.wave(SEED, f"tok25/wave{i}", int(file[f"n{i}"][0]), RATE) for i in range(2)]


def random_codes(frames, seed=0):
    return np.random.default_rng(seed).integers(0, 96, frames).astype(np.int32)


def chunked(x, size):
    return (x[i : i + size] for i in range(0, len(x), size))


# Official results


def test_the_family_follows_from_the_configuration(official, tokenizer):
    assert type(official) is type(tokenizer) is SpeechTokenizer25Hz
    assert official.quirks == Quirks25Hz.official()
    assert tokenizer.quirks == Quirks25Hz()
    assert (tokenizer.codebooks, tokenizer.samples_per_frame) == (1, SAMPLES)
    assert (tokenizer.input_sample_rate, tokenizer.sample_rate) == (16000, 24000)


def test_decoded_waves_are_the_official_ones(official, golden, voices):
    file = golden("tok25_decode")
    codes = [file["codes0"], file["codes1"][:, None]]
    # The file was made with two points in time, one network evaluation.
    waves, rate = official.decode(codes, voices, noise=list(file["noise"]), steps=2)
    assert rate == 24000
    for i, wave in enumerate(waves):
        assert wave.dtype == np.float32
        assert wave.shape == file[f"wav{i}"].shape
        assert np.abs(wave - file[f"wav{i}"]).max() < 1e-3


def test_codes_of_a_call_are_the_official_ones(official, golden, waves):
    file = golden("tok25_encode")
    for i, codes in enumerate(official.encode(waves, RATE)):
        assert codes.dtype == np.int32
        np.testing.assert_array_equal(codes, file[f"codes{i}"])
        np.testing.assert_array_equal(
            official.encode((waves[i], RATE))[0], file[f"single_codes{i}"]
        )


# Items of a batch, and chunks of a stream, are what they are in the whole


def test_items_of_a_batch_are_what_they_are_alone(tokenizer, voices):
    codes, seeds = [random_codes(14), random_codes(13, 1)], [5, 6]
    together, _ = tokenizer.decode(codes, voices, seed=seeds)
    for i, wave in enumerate(together):
        alone = tokenizer.decode(codes[i], voices[i], seed=seeds[i])[0][0]
        assert wave.shape == (len(codes[i]) * SAMPLES,)
        assert np.abs(wave - alone).max() < 1e-5
    other = tokenizer.decode(codes[0], voices[0], seed=7)[0][0]
    assert np.abs(other - together[0]).max() > 1e-3


@pytest.mark.parametrize("size", [1, 4, 100])
def test_streamed_audio_is_the_whole_audio(tokenizer, voices, size):
    codes = random_codes(17)
    (whole,), _ = tokenizer.decode(codes, voices[0], seed=2)
    chunks = list(tokenizer.stream_decode(chunked(codes, size), voices[0], seed=2))
    assert len(chunks) > 1
    assert all(len(chunk) for chunk in chunks)
    assert np.abs(np.concatenate(chunks) - whole).max() < 1e-5


@pytest.mark.slow
def test_given_noise_is_streamed_with_its_codes(tokenizer, voices):
    codes, rng = random_codes(17), np.random.default_rng(4)
    noise = rng.standard_normal((34, 80)).astype(np.float32)
    (whole,), _ = tokenizer.decode(codes, voices[0], noise=noise[None])
    streamed = tokenizer.stream_decode(chunked(codes, 5), voices[0], noise=noise)
    assert np.abs(np.concatenate(list(streamed)) - whole).max() < 1e-5


def test_a_short_look_ahead_is_sooner_and_not_the_same(tokenizer, voices):
    codes = random_codes(17)
    (whole,), _ = tokenizer.decode(codes, voices[0], seed=2)
    first = {}
    for ahead in (None, 0):
        received = 0

        def counted(size=1):
            nonlocal received
            for chunk in chunked(codes, size):
                received += len(chunk)
                yield chunk

        stream = tokenizer.stream_decode(counted(), voices[0], seed=2, look_ahead=ahead)
        chunk = next(stream)
        first[ahead] = received
        rest = np.concatenate([chunk, *stream])
        assert rest.shape == whole.shape
    assert first[0] < first[None]
    assert np.abs(rest - whole).max() > 1e-6


@pytest.mark.slow
def test_rows_of_a_stream_end_where_they_end(tokenizer, voices):
    """Ends that only the device knows (-1) give what whole decoding gives."""
    codes, seeds = [random_codes(14), random_codes(7, 1)], [5, 6]
    made = np.full((2, 15), -1, np.int32)
    for row, each in zip(made, codes, strict=True):
        row[: len(each)] = each
    each = SpeechTokenizer.from_params(tokenizer.config, tokenizer.params)
    each.set_flow(steps=3)
    each.look_ahead = None
    decoder = each.device_decoder(voices, seeds)
    waves = [decoder.push(made[:, :4]), decoder.push(made[:, 4:])]
    while sum(w.shape[1] for w in waves) < decoder.delay + 14 * SAMPLES:
        waves.append(decoder.finish())
    streamed = np.concatenate(waves, axis=1)[:, decoder.delay :]
    for row, (code, voice, seed) in enumerate(zip(codes, voices, seeds, strict=True)):
        (whole,), _ = tokenizer.decode(code, voice, seed=seed)
        assert np.abs(streamed[row, : len(whole)] - whole).max() < 1e-5


def test_streamed_codes_are_the_whole_codes(tokenizer, waves):
    whole = tokenizer.encode((waves[0], RATE))[0]
    streamed = np.concatenate(list(tokenizer.stream_encode(chunked(waves[0], 3000))))
    np.testing.assert_array_equal(streamed, whole)
    assert whole.shape == (-(-len(waves[0]) // CODE),)


def test_the_first_chunk_covers_the_look_ahead(official, tokenizer):
    block = official.config.decoder.dit.block // official.config.decoder.dit.repeats
    assert official.first_chunks == (2 * block, block)
    paper = SpeechTokenizer.from_params(tiny_tokenizer_25hz(tokenizer_25hz()), {})
    assert paper.first_chunks == (16, 8)
    each = SpeechTokenizer.from_params(tokenizer.config, tokenizer.params)
    each.look_ahead = 0
    assert each.first_chunks == (block, block)
    each.set_flow(steps=3)
    each.look_ahead = None
    assert each.first_chunks == (3 * block, block)


def test_a_declared_rate_cuts_as_the_official_code_does(tokenizer, voices):
    config = dataclasses.replace(tokenizer.config, decode_upsample_rate=7)
    codes = random_codes(14)
    for quirks, samples in ((Quirks25Hz(declared_cut=True), 7), (Quirks25Hz(), SAMPLES)):
        each = SpeechTokenizer.from_params(config, tokenizer.params, quirks=quirks)
        each.set_flow(steps=3)
        assert each.decode(codes, voices[0])[0][0].shape == (14 * samples,)


# Voices


def test_the_voice_of_a_recording_decodes(converted_25hz, tokenizer, waves):
    pytest.importorskip("onnxruntime")
    folder = converted_25hz("custom_voice") / "speech_tokenizer"
    voice = SpeechTokenizer.from_pretrained(folder).reference_voice((waves[1], RATE))
    features = fbank(normalize_peak(waves[1]))
    expected = tiny_onnx.expected(MATRIX, features - features.mean(axis=0))
    np.testing.assert_allclose(voice.xvector, expected, rtol=1e-3, atol=1e-5)
    assert voice.ref_mel.shape == (len(waves[1]) // 160, 80)
    assert tokenizer.decode(random_codes(14), voice)[0][0].shape == (14 * SAMPLES,)


def test_a_recording_too_short_for_the_decoder_is_refused(converted_25hz):
    """433 samples make a mel, but fewer frames than the network over it needs."""
    pytest.importorskip("onnxruntime")
    folder = converted_25hz("custom_voice") / "speech_tokenizer"
    loaded = SpeechTokenizer.from_pretrained(folder)
    with pytest.raises(AudioError, match=r"ref .*short.*433 samples"):
        loaded.reference_voice((np.ones(433, np.float32), RATE), "ref")
    stereo = np.stack([np.ones(800, np.float32), np.zeros(800, np.float32)], axis=1)
    assert loaded.reference_voice((stereo, RATE)).ref_mel.shape == (5, 80)
    with pytest.raises(AudioError, match="silent"):
        loaded.reference_voice((np.zeros(800, np.float32), RATE))


def test_voices_come_from_the_checkpoint(converted_25hz, tmp_path, voices):
    folder = tmp_path / "speech_tokenizer"
    shutil.copytree(converted_25hz("custom_voice") / "speech_tokenizer", folder)
    write_voices(folder, {"Ryan": voices[0], "default": voices[1]})
    loaded = SpeechTokenizer.from_pretrained(folder)
    for name, expected in (("ryan", voices[0]), ("eric", voices[1]), (None, voices[1])):
        found = loaded.decoder_voice(None, name)
        np.testing.assert_array_equal(found.xvector, expected.xvector)
    assert loaded.decoder_voice(voices[0], "eric").xvector[0] == voices[0].xvector[0]
    write_voices(folder, {"ryan": ReferenceVoice(voices[0].xvector[:5], voices[0].ref_mel)})
    with pytest.raises(CheckpointError, match=r"voices.npz: the x-vector must have the shape"):
        SpeechTokenizer.from_pretrained(folder)


def test_a_tokenizer_without_a_folder_cannot_compute_voices(tokenizer, waves):
    with pytest.raises(CheckpointError, match=r"no campplus\.onnx"):
        tokenizer.reference_voice((waves[1], RATE))


def test_a_12hz_tokenizer_takes_no_voice(converted, voices, waves):
    tokenizer = SpeechTokenizer.from_pretrained(converted("custom_voice"))
    assert not tokenizer.needs_voice
    with pytest.raises(RequestError, match="decodes without a voice"):
        tokenizer.decoder_voice(voices[0])
    with pytest.raises(RequestError, match="decodes without a voice"):
        tokenizer.reference_voice((waves[0], RATE))


# Bad input


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((4, 2), np.int32), r"shape \[frames\], not \[4, 2\]"),
        (np.zeros(4, np.float32), "integers, not float32"),
        (np.zeros(0, np.int32), "empty"),
        (np.full(4, 96), "0 ... 95, but one is 96"),
        (np.full(4, -1), "0 ... 95, but one is -1"),
        ([], "list is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_codes_are_refused(tokenizer, voices, codes, message):
    with pytest.raises(RequestError, match=message):
        tokenizer.decode(codes, voices[0])
    if not isinstance(codes, list):
        with pytest.raises(RequestError, match=message):
            list(tokenizer.stream_decode([random_codes(1), codes], voices[0]))


MEL, VECTOR = np.zeros((31, 80), np.float32), np.zeros(20, np.float32)


@pytest.mark.parametrize(
    ("voice", "message"),
    [
        (None, "does not know the voice: give an x-vector and a reference mel"),
        ((VECTOR, MEL), "ReferenceVoice, not int"),
        (ReferenceVoice(VECTOR[:19], MEL), r"x-vector must have the shape \[20\], not \[19\]"),
        (ReferenceVoice(VECTOR[None], MEL), r"shape \[20\], not \[1, 20\]"),
        (ReferenceVoice(VECTOR, MEL[:, :79]), r"shape \[frames, 80\].*not \[31, 79\]"),
        (ReferenceVoice(VECTOR, MEL[:2]), r"at least \d+ frames, not \[2, 80\]"),
        (ReferenceVoice(VECTOR + np.nan, MEL), "x-vector must hold finite"),
        (ReferenceVoice(VECTOR, MEL.astype(int)), "reference mel must hold finite"),
        (ReferenceVoice(VECTOR, MEL.astype(np.float64) + 1e300), "reference mel must hold finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_voices_are_refused(tokenizer, voice, message):
    voice = 3 if isinstance(voice, tuple) else voice
    with pytest.raises(RequestError, match=message.replace("not tuple", "not int")):
        tokenizer.decode(random_codes(4), voice)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": np.zeros((7, 80), np.float32)}, r"at least 8 frames, 2 for a code, not \[7, 80"),
        ({"noise": np.zeros((8, 79), np.float32)}, r"shape \[frames, 80\]"),
        ({"noise": np.full((8, 80), np.inf, np.float32)}, "noise must hold finite"),
        ({"steps": 1}, "steps must be a whole number of at least 2, not 1"),
        ({"steps": 2.5}, "whole number"),
        ({"guidance": -1.0}, "guidance must be a number from 0 up"),
        ({"guidance": float("nan")}, "guidance must be a number"),
        ({"guidance": "strong"}, "guidance must be a number from 0 up, not 'strong'"),
        ({"seed": -1}, "seed must be a whole number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_settings_are_refused(tokenizer, voices, options, message):
    with pytest.raises(RequestError, match=message):
        tokenizer.decode(random_codes(4), voices[0], **options)
    with pytest.raises(RequestError, match=message.replace("at least 8", r"at least \d+")):
        list(tokenizer.stream_decode([random_codes(4)], voices[0], **options))


@pytest.mark.parametrize("ahead", [-1, 0.5, True])
def test_a_bad_look_ahead_is_refused(tokenizer, voices, ahead):
    with pytest.raises(RequestError, match="look_ahead is .*: give 0 or more blocks, or None"):
        list(tokenizer.stream_decode([random_codes(4)], voices[0], look_ahead=ahead))


def test_a_stream_without_codes_is_silent(tokenizer, voices):
    assert list(tokenizer.stream_decode([], voices[0])) == []


def test_halves_that_do_not_fit_are_warned_of_once_at_the_first_use(tokenizer, voices):
    """These make 25 codes a second and read 2400; 96 codes of the encoder are known."""
    made = SpeechTokenizer.from_params(tokenizer.config, tokenizer.params)
    made.set_flow(steps=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RequestError, match="one is 96"):
            made.decode(np.full(14, 96), voices[0])
    with pytest.warns(UserWarning, match="makes 25 codes a second, the decoder reads 2400"):
        made.decode(random_codes(14), voices[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.decode(random_codes(14), voices[0])


def test_lists_that_do_not_match_are_refused(tokenizer, voices):
    codes = [random_codes(4)] * 3
    with pytest.raises(RequestError, match="voice has 2 entries for 3 items"):
        tokenizer.decode(codes, voices)
    noise = np.zeros((8, 80), np.float32)
    with pytest.raises(RequestError, match="some of the codes only"):
        tokenizer.decode(codes, voices[0], noise=[noise, None, noise])


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(CODE, np.float32), "sample_rate"),
        ((np.zeros(CODE - 1, np.float32), RATE), "too short"),
        ((np.full(CODE, np.nan, np.float32), RATE), "NaN"),
        ([], "list is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_audio_is_refused(tokenizer, audio, message):
    with pytest.raises(AudioError, match=message):
        tokenizer.encode(audio)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "too short"),
        ([np.zeros(100, np.float32)], "too short"),
        ([np.zeros((CODE, 2), np.float32)], "mono"),
        ([np.array([0.0, np.nan])], "NaN"),
    ],
    ids=["none", "short", "stereo", "nan"],
)
def test_bad_streams_of_audio_are_refused(tokenizer, chunks, message):
    with pytest.raises(AudioError, match=message):
        list(tokenizer.stream_encode(chunks))


def test_quirks_of_the_other_family_are_refused(tokenizer):
    with pytest.raises(RequestError, match="Quirks25Hz, not Quirks12Hz"):
        SpeechTokenizer.from_params(tokenizer.config, tokenizer.params, quirks=Quirks12Hz())


def test_another_kind_of_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    with pytest.raises(ConfigError, match="'whisper'; a speech tokenizer has"):
        SpeechTokenizer.from_pretrained(tmp_path)
