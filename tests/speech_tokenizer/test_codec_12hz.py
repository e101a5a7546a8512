"""The public tokenizer: official results, streams, batches, compilations and bad input."""

import base64
import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from qtts_jax import SpeechTokenizer
from qtts_jax.configs.tokenizer_12hz import Quirks12Hz
from qtts_jax.errors import AudioError, CheckpointError, RequestError
from qtts_jax.speech_tokenizer import codec_12hz
from qtts_jax.speech_tokenizer.batch_shapes import cover
from qtts_jax.speech_tokenizer.programs_12hz import BATCH_BLOCKS, Programs12Hz

SEED, RATE, FRAME = 1234, 24000, 1920


@pytest.fixture(scope="module")
def official(converted):
    return SpeechTokenizer.from_pretrained(converted("base"), exact_reference=True)


@pytest.fixture(scope="module")
def tokenizer(official):
    return SpeechTokenizer.from_params(official.config, official.params)


@pytest.fixture(scope="module")
def waves(golden, detweights):
    file = golden("tok12_encode")
    return [detweights.wave(SEED, f"tok12/wave{i}", int(file[f"n{i}"][0]), RATE) for i in range(3)]


@pytest.fixture(scope="module")
def long_wave(tokenizer, detweights):
    """Longer than the configured attention window of the encoder."""
    encoder = tokenizer.config.encoder
    frames = encoder.transformer.window // encoder.downsample + 12
    return detweights.wave(SEED, "tok12/long", frames * FRAME + 100, RATE)


def random_codes(frames, seed=0):
    return np.random.default_rng(seed).integers(0, 64, (frames, 16)).astype(np.int32)


def with_quirks(tokenizer, **quirks):
    return SpeechTokenizer.from_params(
        tokenizer.config, tokenizer.params, quirks=Quirks12Hz(**quirks)
    )


def chunked(x, size, seed=0):
    """x in chunks of `size`, or of random sizes."""
    rng, start = np.random.default_rng(seed), 0
    while start < len(x):
        step = size if size != "random" else int(rng.integers(1, 2 + len(x) // 5))
        yield x[start : start + step]
        start += step


# Official results


def test_decoded_waves_are_the_official_ones(official, tokenizer, golden):
    file = golden("tok12_decode")
    for each in (official, tokenizer):
        waves, rate = each.decode([file["codes0"], file["codes1"]])
        assert rate == RATE
        for i, wave in enumerate(waves):
            assert wave.dtype == np.float32
            assert wave.shape == file[f"wav{i}"].shape
            assert np.abs(wave - file[f"wav{i}"]).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "chunk", "context"),
    [("full", None, 25), ("chunk8_left3", 8, 3), ("chunk5_left5", 5, 5)],
)
def test_chunked_decode_is_the_official_one(tokenizer, golden, name, chunk, context):
    file = golden("tok12_chunked")
    each = with_quirks(tokenizer, decode_chunk=chunk, decode_context=context)
    codes = file["codes"][0].T
    (wave,), _ = each.decode(codes)
    assert np.abs(wave[::3] - file[name]).max() < 1e-4
    streamed = np.concatenate(list(each.stream_decode(chunked(codes, "random"))))
    assert np.abs(streamed - wave).max() < 1e-5


def test_long_decode_is_the_official_one(official, golden, detweights):
    file = golden("tok12_chunked")
    n = int(file["long_n"][0])
    codes = detweights.integers(SEED, "tok12/chunklong", (1, 16, n), 64)[0].T
    (wave,), _ = official.decode(codes)
    assert np.abs(wave[::97] - file["long_default"]).max() < 1e-4
    assert np.abs(wave[300 * FRAME - 40 : 300 * FRAME + 2000] - file["long_tail"]).max() < 1e-4


@pytest.mark.parametrize("item", range(3))
def test_codes_of_one_recording_are_the_official_ones(official, golden, waves, item):
    codes = official.encode((waves[item], RATE))
    assert len(codes) == 1
    assert codes[0].dtype == np.int32
    np.testing.assert_array_equal(codes[0], golden("tok12_encode")[f"codes{item}"])


def test_codes_of_a_batch_are_the_official_ones(official, golden, waves):
    for i, codes in enumerate(official.encode(waves, RATE)):
        np.testing.assert_array_equal(codes, golden("tok12_encode")[f"batch_codes{i}"])


# Each item of a batch, and each chunk of a stream, is what it is in the whole


def test_items_of_a_batch_are_what_they_are_alone(tokenizer, waves):
    alone = [tokenizer.encode((wave, RATE))[0] for wave in waves]
    for together, single in zip(tokenizer.encode(waves, RATE), alone, strict=True):
        np.testing.assert_array_equal(together, single)
    codes = [random_codes(n, n) for n in (3, 20, 9, 1, 14)]
    for together, one in zip(tokenizer.decode(codes)[0], codes, strict=True):
        np.testing.assert_allclose(together, tokenizer.decode(one)[0][0], atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, "random"])
def test_streamed_audio_is_the_whole_audio(tokenizer, size):
    codes = random_codes(41)
    whole = tokenizer.decode(codes)[0][0]
    chunks = list(tokenizer.stream_decode(chunked(codes, size)))
    assert [len(c) for c in chunks] == [len(p) * FRAME for p in chunked(codes, size)]
    assert np.abs(np.concatenate(chunks) - whole).max() < 1e-5


@pytest.mark.parametrize("size", [777, FRAME, 3 * FRAME, 10**6, "random"])
@pytest.mark.parametrize("which", ["default", "official"])
def test_streamed_codes_are_the_whole_codes(tokenizer, official, waves, size, which):
    each = tokenizer if which == "default" else official
    wave = waves[2]
    streamed = np.concatenate(list(each.stream_encode(chunked(wave, size))))
    np.testing.assert_array_equal(streamed, each.encode((wave, RATE))[0])


def test_codes_come_as_soon_as_their_frame_is_complete(tokenizer, waves):
    stream = tokenizer.stream_encode(iter([waves[0][:FRAME], waves[0][FRAME : FRAME + 5]]))
    assert next(stream).shape == (1, 16)
    assert next(stream).shape == (1, 16)
    assert list(stream) == []


def test_decoding_in_blocks_has_no_seam(tokenizer):
    codes = random_codes(150)
    assert len(cover(150, BATCH_BLOCKS[1])) > 1
    graph, params = tokenizer.programs, tokenizer.params["decoder"]
    padded = np.zeros((1, 256, 16), np.int32)
    padded[0, :150] = codes
    one_block, _ = graph.decode(params, padded, graph.decoder_state(params, 1))
    wave = tokenizer.decode(codes)[0][0]
    assert np.abs(wave - np.asarray(one_block)[0, : 150 * FRAME]).max() < 1e-5


def test_chunked_decode_changes_audio_only_after_its_first_chunk(tokenizer):
    codes = random_codes(20)
    exact = tokenizer.decode(codes)[0][0]
    (chunked,), _ = with_quirks(tokenizer, decode_chunk=8, decode_context=1).decode(codes)
    assert np.abs(chunked - exact)[: 8 * FRAME].max() < 1e-5
    assert np.abs(chunked - exact)[8 * FRAME :].max() > 1e-3


def test_padding_to_the_longest_touches_only_the_end(tokenizer, waves):
    alone = tokenizer.encode((waves[2], RATE))[0]
    padded = with_quirks(tokenizer, pad_to_longest=True).encode([waves[1], waves[2]], RATE)[1]
    assert padded.shape == alone.shape
    np.testing.assert_array_equal(padded[:-2], alone[:-2])
    assert (padded[-2:] != alone[-2:]).any()


# Ways in and out


def test_audio_comes_as_path_bytes_base64_or_array(tokenizer, waves, tmp_path):
    wave = waves[2][: 3 * FRAME + 100]
    path = tmp_path / "a.wav"
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    encoded = path.read_bytes()
    sources = [path, str(path), encoded, base64.b64encode(encoded).decode(), (wave, RATE)]
    expected = tokenizer.encode(wave, RATE)[0]
    for source in sources:
        np.testing.assert_array_equal(tokenizer.encode(source)[0], expected)
    stereo = io.BytesIO()
    soundfile.write(stereo, np.stack([wave, wave], axis=1), RATE, format="WAV", subtype="FLOAT")
    np.testing.assert_array_equal(tokenizer.encode(stereo.getvalue())[0], expected)


def test_other_rates_are_resampled(tokenizer):
    t = np.arange(16000) / 16000
    wave = (0.3 * np.sin(2 * np.pi * 220 * t)).astype(np.float32)
    assert tokenizer.encode((wave, 16000))[0].shape == (13, 16)


def test_codes_come_as_array_list_or_batch(tokenizer):
    codes = random_codes(8).reshape(2, 4, 16)
    expected = [tokenizer.decode(row)[0][0] for row in codes]
    for given in (codes, list(codes), tuple(codes), jnp.asarray(codes), codes.astype(np.int64)):
        waves, _ = tokenizer.decode(given)
        np.testing.assert_allclose(waves, expected, atol=1e-5)


def test_a_batch_whose_rows_end_in_minus_one_is_cut_to_each_row(tokenizer):
    codes = np.stack([random_codes(5), random_codes(5, 1)])
    codes[1, 3:] = -1
    waves, _ = tokenizer.decode(codes)
    assert [len(wave) for wave in waves] == [5 * FRAME, 3 * FRAME]
    np.testing.assert_allclose(waves[1], tokenizer.decode(codes[1, :3])[0][0], atol=1e-5)
    codes[0, 2, 1] = -1  # no padding: its frame has a first code
    with pytest.raises(RequestError, match="but one is -1"):
        tokenizer.decode(codes)
    with pytest.raises(RequestError, match="empty"):
        tokenizer.decode(np.full((1, 4, 16), -1))


def test_long_recordings_have_the_official_codes_by_default(official, tokenizer, long_wave):
    """The reference attends to all earlier audio: codes after the configured window, too."""
    codes = tokenizer.encode((long_wave, RATE))[0]
    np.testing.assert_array_equal(codes, official.encode((long_wave, RATE))[0])
    windowed = with_quirks(tokenizer, encoder_window=True).encode((long_wave, RATE))[0]
    assert (windowed != codes).any()


@pytest.mark.parametrize("size", [FRAME, 5000])
def test_a_stream_longer_than_its_first_caches_has_the_codes_of_the_whole(
    tokenizer, long_wave, size, monkeypatch
):
    """Its caches grow, beyond `max_positions` too, as encoding the whole recording does."""
    monkeypatch.setattr(codec_12hz, "FIRST_CAPACITY", 4)
    monkeypatch.setattr(codec_12hz, "GROWTH", 2)
    transformer = dataclasses.replace(tokenizer.config.encoder.transformer, max_positions=8)
    encoder = dataclasses.replace(tokenizer.config.encoder, transformer=transformer)
    config = dataclasses.replace(tokenizer.config, encoder=encoder)
    short = SpeechTokenizer.from_params(config, tokenizer.params)
    streamed = np.concatenate(list(short.stream_encode(chunked(long_wave, size))))
    np.testing.assert_array_equal(streamed, tokenizer.encode((long_wave, RATE))[0])


def test_only_a_stream_with_a_window_has_constant_memory(tokenizer, long_wave, monkeypatch):
    monkeypatch.setattr(codec_12hz, "FIRST_CAPACITY", 4)
    sizes = {}
    for window in (False, True):
        each, seen = with_quirks(tokenizer, encoder_window=window), []
        encode = each.programs.encode

        def spy(params, samples, lengths, state, encode=encode, seen=seen):
            seen.append(sum(x.nbytes for x in jax.tree.leaves(state.transformer.layers)))
            return encode(params, samples, lengths, state)

        with monkeypatch.context() as patch:
            patch.setattr(each.programs, "encode", spy)
            list(each.stream_encode(chunked(long_wave, FRAME)))
        sizes[window] = seen
    assert len(set(sizes[True])) == 1
    assert sizes[False][-1] > sizes[False][0]


def test_exact_reference_is_every_quirk(official, tokenizer):
    assert official.quirks == Quirks12Hz.official()
    assert tokenizer.quirks == Quirks12Hz()
    assert (official.sample_rate, official.samples_per_frame) == (RATE, FRAME)


def test_a_tokenizer_folder_and_a_whole_checkpoint_both_load(converted, tokenizer):
    alone = SpeechTokenizer.from_pretrained(
        converted("base") / "speech_tokenizer", dtype=jnp.bfloat16
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(alone.params)} == {jnp.dtype(jnp.bfloat16)}
    codes = random_codes(6)
    wave, exact = (t.decode(codes)[0][0] for t in (alone, tokenizer))
    assert wave.dtype == np.float32
    assert np.abs(wave - exact).max() < 0.1 * np.abs(exact).max()
    assert alone.encode((np.zeros(4000, np.float32), RATE))[0].shape == (3, 16)


# Compilations


def test_other_lengths_and_instances_compile_nothing(tokenizer, waves):
    graph = tokenizer.programs
    tokenizer.decode(random_codes(70))
    tokenizer.encode((waves[1][: 14 * FRAME], RATE))
    decode, encode = graph.decode._cache_size(), graph.encode._cache_size()
    again = SpeechTokenizer.from_params(dataclasses.replace(tokenizer.config), tokenizer.params)
    again.decode(random_codes(72))
    again.decode(random_codes(69))
    again.encode((waves[1][: 13 * FRAME + 7], RATE))
    assert (graph.decode._cache_size(), graph.encode._cache_size()) == (decode, encode)


def test_any_length_needs_few_programs(tokenizer, monkeypatch):
    """Shapes of every length up to 1000 frames, without computing them."""
    shapes = set()

    def decode(params, codes, state):
        shapes.add(codes.shape)
        return np.zeros((len(codes), codes.shape[1] * FRAME), np.float32), state

    fresh = Programs12Hz(tokenizer.config, Quirks12Hz())
    monkeypatch.setattr(fresh, "decode", decode)
    each = SpeechTokenizer.from_params(tokenizer.config, tokenizer.params)
    each.programs = fresh
    for frames in range(1, 1000, 13):
        each.decode(np.zeros((frames, 16), np.int32))
    assert len(shapes) <= 5
    list(each.stream_decode(np.zeros((n, 16), np.int32) for n in range(1, 300)))
    assert len(shapes) <= 8


# Bad input


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((4, 15), np.int32), r"shape \[frames, 16\], not \[4, 15\]"),
        (np.zeros((16,), np.int32), "shape"),
        (np.zeros((4, 16), np.float32), "integers, not float32"),
        (np.zeros((4, 16), bool), "integers, not bool"),
        (np.zeros((0, 16), np.int32), "empty"),
        (np.full((4, 16), 64), "0 ... 63, but one is 64"),
        (np.full((4, 16), -1), "0 ... 63, but one is -1"),
        ([], "list is empty"),
        ([np.zeros((4, 16), np.int32), np.zeros((4, 3), np.int32)], "shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_codes_are_refused(tokenizer, codes, message):
    with pytest.raises(RequestError, match=message):
        tokenizer.decode(codes)
    if not isinstance(codes, list):
        with pytest.raises(RequestError, match=message):
            list(tokenizer.stream_decode([random_codes(1), codes]))


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(FRAME, np.float32), "sample_rate"),
        (io.BytesIO(b"RIFF"), "file object"),
        (None, "is missing"),
        ((np.zeros(0, np.float32), RATE), "empty"),
        ((np.full(FRAME, np.nan, np.float32), RATE), "NaN"),
        ((np.zeros(FRAME, np.float32), 0), "rate"),
        ("no/such/file.wav", "no file"),
        (b"not audio", "cannot be read"),
        ([], "list is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_audio_is_refused(tokenizer, audio, message):
    with pytest.raises(AudioError, match=message):
        tokenizer.encode(audio)


@pytest.mark.parametrize("samples", [1, 100, FRAME - 1])
def test_less_than_a_frame_is_one_code_as_in_the_official_package(official, waves, samples):
    wave = waves[0][:samples]
    alone = official.encode((wave, RATE))[0]
    assert alone.shape == (1, official.codebooks)
    assert len(official.encode((waves[0][: FRAME + samples], RATE))[0]) == 2


def test_the_faulty_item_of_a_list_is_named(tokenizer):
    good = (np.zeros(FRAME, np.float32), RATE)
    with pytest.raises(AudioError, match="audio 1"):
        tokenizer.encode([good, (np.zeros(0, np.float32), RATE)])


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "too short"),
        ([np.zeros(100, np.float32)], "too short"),
        ([np.zeros(FRAME, np.float32), np.array([0.0, np.nan])], "NaN"),
        ([np.zeros((FRAME, 2), np.float32)], "mono"),
        ([np.zeros(FRAME, np.int16)], "float arrays"),
    ],
    ids=["none", "short", "nan", "stereo", "integers"],
)
def test_bad_streams_of_audio_are_refused(tokenizer, chunks, message):
    with pytest.raises(AudioError, match=message):
        list(tokenizer.stream_encode(chunks))


def test_exact_reference_and_quirks_together_are_refused(converted):
    with pytest.raises(RequestError, match="not both"):
        SpeechTokenizer.from_pretrained(
            converted("base"), exact_reference=True, quirks=Quirks12Hz()
        )


def test_a_torch_checkpoint_is_refused_with_the_way_to_convert_it(released, tmp_path):
    with pytest.raises(CheckpointError, match="python -m convert"):
        SpeechTokenizer.from_pretrained(released / "base")
    with pytest.raises(CheckpointError, match="no config"):
        SpeechTokenizer.from_pretrained(tmp_path)


def test_a_part_on_the_host_comes_back_when_it_is_used(tokenizer):
    each = SpeechTokenizer.from_params(tokenizer.config, tokenizer.params)
    each.keep_on_host("encoder")
    leaves = jax.tree.leaves(each.params["encoder"])
    assert all(isinstance(x, np.ndarray) for x in leaves)
    wave = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    rate = tokenizer.config.input_sample_rate
    np.testing.assert_array_equal(each.encode(wave, rate)[0], tokenizer.encode(wave, rate)[0])
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(each.params["encoder"]))
