"""Encoder of the 25 Hz tokenizer: the official numbers, and windows that do not see each other."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert.faults import Faults
from convert.rules import Rule, plan
from convert.tokenizer_25hz_encoder_rules import encoder_rules
from qtts_jax.configs.presets import tiny_tokenizer_25hz, tokenizer_25hz
from qtts_jax.configs.tokenizer_25hz import Encoder25HzConfig, Quirks25Hz, Tokenizer25HzConfig
from qtts_jax.dsp.whisper_mel import padded_wave
from qtts_jax.errors import AudioError
from qtts_jax.functional import abstract, bind
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.models.tokenizer_25hz.encoder import Encoder25Hz
from qtts_jax.speech_tokenizer.batch_shapes import cover
from qtts_jax.speech_tokenizer.programs_25hz_encode import BLOCKS, encode_programs
from tests.golden_tools.cases_25hz_encoder import CASES
from tests.support.contract import verify_streaming
from tests.support.helpers import GOLDEN, assert_close

SEED = 1234
OFFICIAL = Quirks25Hz.official()
MASKED = Quirks25Hz()


def drawn_params(config, detweights, seed):
    """Weights by the converter's table, with no file between."""
    tree = abstract(Encoder25Hz, config)[1]
    shapes = {f"encoder/{name}": tuple(x.shape) for name, x in flatten_params(tree).items()}
    arrays = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
    faults = Faults()
    rules = [rule for rule in encoder_rules(config) if isinstance(rule, Rule)]
    for part in plan(rules, shapes, faults):
        view = part.view(arrays[part.target])
        view[...] = detweights.tensor(seed, part.source, part.shape).reshape(view.shape)
    faults.raise_any("the encoder")
    leaves = [jnp.asarray(arrays[name]) for name in shapes]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def section(data):
    """The configuration of an `encoder_config`."""
    decoder = {"dit_config": {}, "bigvgan_config": {}}
    whole = {"model_type": "qwen3_tts_tokenizer_25hz", "decoder_config": decoder}
    return Tokenizer25HzConfig.from_hf(whole | {"encoder_config": data}).encoder


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module")
def small(detweights):
    """The golden encoder: its configuration and parameters."""
    folder = GOLDEN / "ckpt" / "tokenizer_25hz"
    data = json.loads((folder / "config.json").read_text())
    seed = json.loads((folder / "manifest.json").read_text())["seed"]
    config = Tokenizer25HzConfig.from_hf(data).encoder
    return config, drawn_params(config, detweights, seed)


@pytest.fixture(scope="module")
def extra(detweights):
    """`extra(name)`: a case of another size: the case, its configuration and parameters."""
    cases = {case.name: case for case in CASES}

    @functools.cache
    def build(name):
        config = section(cases[name].config)
        return cases[name], config, drawn_params(config, detweights, cases[name].seed)

    return build


@pytest.fixture(scope="module")
def waves(golden, detweights):
    file = golden("tok25_encode")
    return [detweights.wave(SEED, f"tok25/wave{i}", int(file[f"n{i}"][0]), 16000) for i in range(2)]


def windows_of(config, waves):
    """All windows of recordings: mel [R, F, M] with NaN behind their ends, and lengths [R]."""
    programs, rows, lengths = encode_programs(config, OFFICIAL), [], []
    for wave in waves:
        samples, frames = programs.windows(padded_wave(wave, config.frames_per_code))
        peak = programs.peak([wave])[0]
        for row, n in zip(samples, frames, strict=True):
            power = np.asarray(programs.measure(row[None], np.array([n]))[0])[0]
            mel = (np.maximum(power, peak - 8) + 4) / 4
            mel[n:] = np.nan
            rows.append(mel)
            lengths.append(n)
    return np.stack(rows), np.array(lengths)


def packed(rows, lengths):
    """Real steps of all windows one after the other."""
    return np.concatenate([row[:n] for row, n in zip(np.asarray(rows), lengths, strict=True)])


def test_intermediates_equal_the_official_ones(small, waves, golden):
    config, params = small
    mel, lengths = windows_of(config, waves)
    file = golden("tok25_encode")

    @jax.jit
    def run(params):
        encoder = bind(abstract(Encoder25Hz, config)[0], params)
        attended = jnp.asarray(lengths.max() // 2)
        blocks = [
            encoder.hidden(mel, lengths, attended, layers=i + 1)
            for i in range(config.quantizer_layer)
        ]
        return blocks, encoder.embed(mel, lengths, attended)

    blocks, embedded = run(params)
    for i, block in enumerate(blocks):
        assert_close(packed(block, lengths // 2), file[f"block{i}"])
    assert_close(packed(embedded, lengths // config.frames_per_code), file["vq_in"])


def test_codes_equal_the_official_ones(small, waves, golden):
    config, params = small
    file = golden("tok25_encode")
    assert file["min_distance_gap"] > 1e-3
    programs = encode_programs(config, OFFICIAL)
    for i, codes in enumerate(programs.encode(params, waves)):
        np.testing.assert_array_equal(codes, file[f"codes{i}"])
        np.testing.assert_array_equal(
            programs.encode(params, waves[i : i + 1])[0], file[f"single_codes{i}"]
        )


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_other_sizes_equal_the_official_ones(name, extra, golden):
    case, config, params = extra(name)
    file = {
        key.split("/")[1]: value
        for key, value in golden("tok25_encode_extra").items()
        if key.startswith(f"{name}/")
    }
    assert file["gap"] > 1e-3
    programs = encode_programs(config, OFFICIAL)
    recordings = case.waves()
    for i, codes in enumerate(programs.encode(params, recordings)):
        np.testing.assert_array_equal(codes, file[f"codes{i}"])
        np.testing.assert_array_equal(
            programs.encode(params, recordings[i : i + 1])[0], file[f"single{i}"]
        )

    mel, lengths = windows_of(config, recordings)

    @jax.jit
    def run(params):
        encoder = bind(programs.encoder, params)
        attended = jnp.asarray(lengths.max() // 2)
        embedded = encoder.embed(mel, lengths, attended)
        codes = encoder.quantizer.encode(embedded)
        return embedded, encoder.describe(codes, lengths, attended)

    embedded, output = run(params)
    counts = lengths // config.frames_per_code
    assert_close(packed(embedded, counts)[:, ::3], file["embedded"])

    # The official output of every recording stands between the two `ends`.
    windows = [-(-n // (config.window * 320)) for n in case.samples]
    rows = np.split(np.arange(len(lengths)), np.cumsum(windows)[:-1])
    ends = np.asarray(params["ends"])
    parts = [np.concatenate([ends[:1], packed(output[r], lengths[r] // 4), ends[1:]]) for r in rows]
    assert_close(np.concatenate(parts), file["output"])


def test_the_official_form_depends_on_the_longest_window_of_the_call(small, waves, extra):
    """Otherwise the two forms could not be told apart by the tests here."""
    config, params = small
    short = waves[0][:2000]
    alone = encode_programs(config, OFFICIAL).encode(params, [short])[0]
    thinned = encode_programs(config, OFFICIAL).encode(params, [short, waves[0]])[0]
    assert (alone != thinned).any()


def test_masked_codes_do_not_depend_on_the_rest_of_the_call(small, waves, extra):
    config, params = small
    programs = encode_programs(config, MASKED)
    mixed = [waves[0][:2000], waves[0], waves[1][:700], waves[1], waves[0][:12800]]
    together = programs.encode(params, mixed)
    for wave, codes in zip(mixed, together, strict=True):
        np.testing.assert_array_equal(programs.encode(params, [wave])[0], codes)
    # A recording of one window has nothing to be thinned out by.
    alone = encode_programs(config, OFFICIAL).encode(params, [mixed[0]])[0]
    np.testing.assert_array_equal(together[0], alone)


def test_a_masked_window_is_the_official_one_alone(small, waves):
    config, params = small
    mel, lengths = windows_of(config, waves)
    encoder = bind(abstract(Encoder25Hz, config)[0], params)
    embed = jax.jit(encoder.embed)
    together = embed(mel, lengths)
    for row, n in enumerate(lengths):
        codes = n // config.frames_per_code
        alone = embed(mel[row : row + 1], lengths[row : row + 1], jnp.asarray(n // 2))
        np.testing.assert_allclose(together[row, :codes], alone[0, :codes], rtol=0, atol=1e-4)


def test_gradients_stay_inside_a_window(small):
    config, params = small
    encoder = bind(abstract(Encoder25Hz, config)[0], params)
    size, codes = 2 * config.window, config.codes_per_window
    mel = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3 * size, config.n_mels)), "float32")

    @jax.jit
    @jax.grad
    def gradient(mel, window):
        x = encoder.embed(mel, jnp.array([3 * size - 8]))[0].reshape(3, codes, -1)
        return jnp.sum(jnp.sin(x[window, : codes - 2]))

    for window in range(3):
        moved = np.abs(np.asarray(gradient(mel, window)))[0].max(axis=1)
        inside = slice(window * size, (window + 1) * size)
        assert (np.delete(moved, np.arange(3 * size)[inside]) == 0).all()
        # Inside, attention looks in both directions, but never behind the end of the recording.
        real = size - 8 if window == 2 else size
        assert (moved[inside][:real] > 0).all()
        assert (moved[inside][real:] == 0).all()


def test_streaming_contract(small):
    config, params = small
    encoder = bind(abstract(Encoder25Hz, config)[0], params)

    def step(mel, state, lengths=None):
        if lengths is None:
            lengths = jnp.full(mel.shape[:1], mel.shape[1])
        return encoder.embed(mel, lengths), state

    size = 2 * config.window
    mel = np.random.default_rng(1).normal(size=(2, 4 * size, config.n_mels)).astype(np.float32)
    verify_streaming(encoder, mel, unit=size, step=step, chunkings=(1, 3, "all"), atol=1e-4)


@pytest.mark.parametrize("quirks", [MASKED, OFFICIAL])
def test_streamed_codes_equal_offline(small, waves, quirks):
    config, params = small
    programs = encode_programs(config, quirks)
    wave = np.concatenate([waves[0], waves[1], waves[0][:777]])
    offline = programs.encode(params, [wave])[0]
    peak = programs.peak([wave])[0]
    window = config.window * 320
    for size in (1 << 20, 160, 1000, window, window + 200, 3 * window + 50):
        chunks = [wave[i : i + size] for i in range(0, len(wave), size)]
        pieces = list(programs.stream(params, chunks, peak))
        np.testing.assert_array_equal(np.concatenate(pieces), offline)
        if size == 160:
            assert all(len(p) == config.codes_per_window for p in pieces[:-1])


@pytest.mark.parametrize("samples", [1, 150, 201, 640, 6400, 6401, 6599, 6600, 12799, 12800])
def test_a_stream_of_any_length_equals_offline(small, waves, samples):
    config, params = small
    programs = encode_programs(config, MASKED)
    wave = waves[0][:samples]
    offline = programs.encode(params, [wave])[0]
    assert len(offline) == -(-samples // config.samples_per_code)
    chunks = [wave[:100], wave[100:]]
    streamed = np.concatenate(list(programs.stream(params, chunks, programs.peak([wave])[0])))
    np.testing.assert_array_equal(streamed, offline)


def test_without_a_known_peak_a_stream_uses_the_peak_so_far(small, waves):
    config, params = small
    programs = encode_programs(config, MASKED)
    window = config.window * 320
    loud = np.concatenate([waves[0][:window], 0.1 * waves[1], np.zeros(window, np.float32)])
    streamed = np.concatenate(list(programs.stream(params, [loud])))
    np.testing.assert_array_equal(streamed, programs.encode(params, [loud])[0])
    # The other way round the quiet start is encoded by the level it has, so it differs.
    late = loud[::-1].copy()
    cut = window + 200
    streamed = np.concatenate(list(programs.stream(params, [late[:cut], late[cut:]])))
    known = np.concatenate(list(programs.stream(params, [late], programs.peak([late])[0])))
    np.testing.assert_array_equal(known, programs.encode(params, [late])[0])
    assert (streamed != known).any()


def test_lengths_and_batches_compile_nothing_new(small, waves):
    config, params = small
    programs = encode_programs(config, Quirks25Hz(declared_cut=True))
    for n in (1, 900, 6400, 9000, 15000):
        programs.encode(params, [waves[0][:n]])
    programs.encode(params, [waves[0], waves[1]] * 3)
    assert programs.codes._cache_size() <= len(BLOCKS)
    assert programs.measure._cache_size() <= len(BLOCKS)


def test_blocks_cover_any_number_of_windows():
    for n in range(1, 200):
        sizes = cover(n, BLOCKS)
        assert set(sizes) <= set(BLOCKS)
        assert n <= sum(sizes) <= 1.25 * n + 1e-9


def test_empty_audio_is_refused(small):
    config, params = small
    programs = encode_programs(config, MASKED)
    empty = np.zeros(0, np.float32)
    with pytest.raises(AudioError, match="at least one"):
        programs.encode(params, [empty])
    with pytest.raises(AudioError, match="at least one"):
        list(programs.stream(params, [empty]))


def test_bfloat16_parameters_give_codes(small, waves):
    config, params = small
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    codes = encode_programs(config, MASKED).encode(half, waves)
    full = encode_programs(config, MASKED).encode(params, waves)
    assert [c.shape for c in codes] == [c.shape for c in full]
    assert np.mean(np.concatenate(codes) == np.concatenate(full)) > 0.5


def test_a_code_is_40_ms_in_the_presets():
    config = tiny_tokenizer_25hz(tokenizer_25hz()).encoder
    assert isinstance(config, Encoder25HzConfig)
    assert (config.samples_per_code, config.codes_per_window) == (640, 50)
