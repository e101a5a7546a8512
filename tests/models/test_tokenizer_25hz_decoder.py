"""Decoder of the 25 Hz tokenizer: official numbers, and streams that equal the whole decode."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.presets import tokenizer_25hz, tokenizer_25hz_class_defaults
from qtts_jax.errors import ConfigError, RequestError
from qtts_jax.functional import bind
from qtts_jax.layers.stream_position import full_span
from qtts_jax.models.tokenizer_25hz.receptive_field import latency, receptive_field
from qtts_jax.models.tokenizer_25hz.schedule import frame_noise, schedule
from qtts_jax.speech_tokenizer import whole_decode_25hz
from qtts_jax.speech_tokenizer.host_stream_25hz import open_host_stream, step_host_stream
from qtts_jax.speech_tokenizer.programs_25hz_decode import DecodePrograms, decode_programs
from qtts_jax.speech_tokenizer.whole_decode_25hz import decode_whole
from tests.support.contract import reach
from tests.support.decoders_25hz import (
    CASES,
    CASES_BY_NAME,
    UNOPTIMIZED,
    decoder_config,
    decoder_params,
    golden_config,
)
from tests.support.helpers import assert_close

SEED = 1234
STEPS = 3  # two network evaluations
ROWS, CODES = 2, 17


@pytest.fixture(scope="module", autouse=True)
def _full_float32():
    with jax.default_matmul_precision("highest"):
        yield


# --- the official numbers ------------------------------------------------------------------------


def test_golden_network_and_vocoder(golden, detweights):
    """The stored mel is that of one evaluation over the whole unit of time (`num_steps=2`).

    The vocoder's own golden mel is shorter and rides along as a third row.
    """
    file = golden("tok25_decode")
    config, seed = golden_config()
    params, graphdef = decoder_params(config, seed), decode_programs(config).graphdef
    codes = np.zeros((2, len(file["codes0"])), np.int32)
    codes[0], codes[1, : len(file["codes1"])] = file["codes0"], file["codes1"]
    frames, width = file["noise"].shape[1], config.dit.width
    padded = -(-frames // config.dit.block) * config.dit.block
    shorter = np.swapaxes(detweights.symmetric(SEED, "tok25/bvmel", (1, 80, 17), 3.0) - 4, 1, 2)
    third = np.pad(shorter, ((0, 0), (0, frames - 17), (0, 0)), constant_values=np.nan)

    @functools.partial(jax.jit, compiler_options=UNOPTIMIZED)
    def run(params):
        decoder = bind(graphdef, params)
        flow, dit = decoder.flow, decoder.flow.dit
        voice = flow.condition(file["xvectors"], file["ref_mels"])
        embedded = jnp.repeat(flow.embed_codes(codes), config.dit.repeats, axis=1)
        inputs = flow.inputs(file["noise"], embedded, voice)
        x = jnp.pad(inputs.reshape(4, frames, width), ((0, 0), (0, padded - frames), (0, 0)))
        first = jax.tree.map(lambda t: t[0], dit.modulations(schedule(10).features))
        state = dit.init_state(4, jnp.float32, delayed=False)
        slope, _ = dit.step(x, first, state, full_span(4, padded, jnp.full((4,), frames)))
        mel = flow(codes, file["noise"], voice, schedule(2), 0.5)
        wave = decoder.vocoder(jnp.concatenate([mel, third]), jnp.array([frames, frames, 17]))
        return inputs, slope[:, :frames].reshape(2, 2, frames, -1), mel, wave

    inputs, slope, mel, wave = run(params)
    # The official rows are all guided ones, then all unguided ones.
    for ours, name in ((inputs, "input_embed_first"), (slope, "dit_first_call")):
        assert_close(np.swapaxes(ours, 0, 1).reshape(file[name].shape), file[name])
    assert_close(np.swapaxes(mel, 1, 2), file["mel"])
    per_code = config.samples_per_code
    for row, n in enumerate((len(file["codes0"]), len(file["codes1"]))):
        assert np.abs(wave[row, : n * per_code] - file[f"wav{row}"]).max() < 1e-5
    alone = file["bigvgan_only_wav"]
    assert_close(wave[2:, : alone.shape[1]], alone)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_official_decodes(case, golden):
    """Other sizes, looks, lengths, steps and guidance; batches in the official, unmasked form."""
    config = decoder_config(case.config)
    params, graphdef = decoder_params(config, case.seed), decode_programs(config).graphdef
    given = case.inputs()
    plan = schedule(case.steps, case.sway or 0.0)

    @functools.partial(jax.jit, compiler_options=UNOPTIMIZED)
    def run(params):
        decoder = bind(graphdef, params)
        voice = decoder.flow.condition(given["xvectors"], given["references"])
        mel = decoder.flow(given["codes"], given["noise"], voice, plan, case.guidance)
        return mel, decoder.vocoder(mel)

    mel, wave = run(params)
    assert_close(np.swapaxes(mel, 1, 2), golden("tok25_decode_extra")[f"{case.name}/mel"])
    stored = golden("tok25_decode_extra")[f"{case.name}/wave"]
    assert wave.shape == stored.shape
    assert np.abs(wave - stored).max() < 1e-4


# --- one decoder for all that follows ------------------------------------------------------------


@pytest.fixture(scope="module")
def programs():
    return DecodePrograms(decoder_config(CASES_BY_NAME["ten_steps"].config))


@pytest.fixture(scope="module")
def params(programs):
    return decoder_params(programs.config, 77)


@pytest.fixture(scope="module")
def given(programs):
    dit, rng = programs.config.dit, np.random.default_rng(0)
    return {
        "codes": rng.integers(0, dit.code_entries, (ROWS, CODES)),
        "xvector": rng.standard_normal((ROWS, dit.xvector_width)).astype(np.float32),
        "reference": rng.standard_normal((ROWS, 9, dit.n_mels)).astype(np.float32),
        "noise": rng.standard_normal((ROWS, CODES * dit.repeats, dit.n_mels)).astype(np.float32),
    }


def decode(programs, params, given, *, rows=slice(None), length=CODES, lengths=None, **options):
    noise = options.pop("noise", given["noise"])
    if noise.ndim == 3:
        noise = noise[rows, : length * programs.config.dit.repeats]
    codes = given["codes"][rows, :length]
    return decode_whole(
        programs,
        params,
        codes,
        np.full(len(codes), length) if lengths is None else np.array(lengths),
        given["xvector"][rows],
        given["reference"][rows],
        noise,
        steps=options.pop("steps", STEPS),
        **options,
    )


def stream(programs, params, given, sizes, look_ahead=None, noise=None):
    """All samples of a stream fed in pieces of `sizes` codes, and the number after every piece."""
    noise = given["noise"] if noise is None else noise
    keyed, repeats = noise.ndim == 1, programs.config.dit.repeats
    running = open_host_stream(
        programs, params, given["xvector"], given["reference"], steps=STEPS, look_ahead=look_ahead
    )
    waves, start = [], 0
    for i, size in enumerate(sizes):
        stop = start + size
        wave, running = step_host_stream(
            programs,
            params,
            given["codes"][:, start:stop],
            running,
            noise if keyed else noise[:, start * repeats : stop * repeats],
            final=i == len(sizes) - 1,
        )
        waves.append(wave)
        start = stop
    assert start == CODES
    return np.concatenate(waves, axis=1), np.cumsum([wave.shape[1] for wave in waves])


@pytest.fixture(scope="module")
def offline(programs, params, given):
    return decode(programs, params, given)


CHUNKINGS = {
    "ones": [1] * CODES,
    "one block": [2] * 8 + [1],
    "two blocks": [4] * 4 + [1],
    "three blocks": [6, 6, 5],
    "all": [CODES],
    "ragged": [5, 0, 3, 1, 7, 1, 0],
}


@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_streamed_audio_equals_the_whole_decode(programs, params, given, offline, chunking):
    wave, _ = stream(programs, params, given, CHUNKINGS[chunking])
    assert wave.shape == (ROWS, CODES * programs.config.samples_per_code)
    np.testing.assert_allclose(wave, offline, rtol=0, atol=2e-6)


def test_samples_come_as_soon_as_their_receptive_field_is_there(programs, params, given):
    field = receptive_field(programs.config, STEPS)
    for look_ahead, blocks in ((None, field.ahead_blocks), (1, 1)):
        _, after = stream(programs, params, given, CHUNKINGS["one block"], look_ahead)
        per_block = 2 * programs.config.samples_per_code
        late = blocks * per_block + field.right_samples
        expected = np.maximum(np.arange(1, len(after)) * per_block - late, 0)
        np.testing.assert_array_equal(after[:-1], expected)


def test_limited_stream_does_not_depend_on_the_chunks(programs, params, given, offline):
    first, _ = stream(programs, params, given, CHUNKINGS["one block"], 1)
    for chunking in ("all", "ragged"):
        wave, _ = stream(programs, params, given, CHUNKINGS[chunking], 1)
        np.testing.assert_allclose(wave, first, rtol=0, atol=2e-6)
    # It is another result: blocks beyond the next are not heard.
    assert np.abs(first - offline).max() > 1e-4


def test_enough_look_ahead_is_exact(programs, params, given, offline):
    needed = receptive_field(programs.config, STEPS).ahead_blocks
    assert needed == 2
    wave, _ = stream(programs, params, given, CHUNKINGS["three blocks"], needed + 3)
    np.testing.assert_allclose(wave, offline, rtol=0, atol=2e-6)


def test_references_of_all_lengths_share_a_program(programs, params, given):
    """Short ones, too: a server must not compile one for each."""
    vectors, mel = given["xvector"], given["reference"]  # [B, 9, M]
    longer = np.repeat(mel, 5, axis=1)
    programs.condition_padded(params, vectors, longer)
    count = programs.condition._cache_size()
    found = programs.condition_padded(params, vectors, mel)
    assert programs.condition._cache_size() == count
    exact = programs.condition(params, vectors, mel, np.full(ROWS, 9, np.int32))
    np.testing.assert_allclose(found.voice, exact.voice, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_many_blocks_in_one_limited_step(programs, params, given):
    """`step_blocks` with several blocks is several steps of one."""
    voice = programs.condition_padded(params, given["xvector"], given["reference"])
    plan, repeats = schedule(STEPS), programs.config.dit.repeats
    lengths = np.full(ROWS, programs.module.unbounded, np.int32)

    def run(size):
        state = programs.init_state(params, ROWS, plan.slopes, 1)
        waves = []
        for start in range(0, 6, size):
            stop = start + size
            noise = given["noise"][:, start * repeats : stop * repeats]
            codes = given["codes"][:, start:stop].astype(np.int32)
            arguments = (codes, noise, lengths, voice, plan, np.float32(0.5), state, 1)
            wave, state = programs.step_blocks(params, *arguments)
            waves.append(np.asarray(wave))
        return np.concatenate(waves, axis=1), state

    (one, state), (six, other) = run(2), run(6)
    np.testing.assert_allclose(six, one, rtol=0, atol=2e-6)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)


@pytest.mark.parametrize("look_ahead", [None, 1])
def test_states_keep_their_form_and_are_batch_first(programs, params, given, look_ahead):
    slopes = STEPS - 1
    one, two = (
        jax.eval_shape(lambda p, n=n: programs._init_state(p, n, slopes, look_ahead), params)
        for n in (ROWS, ROWS + 1)
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert (a.shape[0], b.shape[0]) == (ROWS, ROWS + 1)
        assert a.shape[1:] == b.shape[1:]
    running = open_host_stream(
        programs, params, given["xvector"], given["reference"], steps=STEPS, look_ahead=look_ahead
    )
    repeats = programs.config.dit.repeats
    codes, noise = given["codes"][:, :2], given["noise"][:, : 2 * repeats]
    _, after = step_host_stream(programs, params, codes, running, noise)
    assert jax.tree.structure(after.state) == jax.tree.structure(one)
    for a, b in zip(jax.tree.leaves(after.state), jax.tree.leaves(one), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


# --- rows and padding ----------------------------------------------------------------------------


def test_a_row_of_a_batch_is_what_it_is_alone(programs, params, given, offline):
    short = 10
    together = decode(programs, params, given, lengths=[CODES, short])
    alone = decode(programs, params, given, rows=slice(1, 2), length=short)
    samples = short * programs.config.samples_per_code
    np.testing.assert_allclose(together[1, :samples], alone[0], rtol=0, atol=2e-6)
    np.testing.assert_allclose(together[0], offline[0], rtol=0, atol=2e-6)
    # The unmasked form of the official code differs there.
    assert np.abs(offline[1, :samples] - alone[0]).max() > 1e-3


def test_rows_do_not_see_each_other(programs, params, given, offline):
    other = {name: array.copy() for name, array in given.items()}
    for name in ("xvector", "reference", "noise"):
        other[name][1] = np.nan
    other["codes"][1] = 0
    assert np.isfinite(offline).all()
    np.testing.assert_allclose(decode(programs, params, other)[0], offline[0], rtol=0, atol=2e-6)
    wave, _ = stream(programs, params, other, CHUNKINGS["three blocks"])
    np.testing.assert_allclose(wave[0], offline[0], rtol=0, atol=2e-6)


def test_reference_padding_has_no_effect(programs, params, given, offline):
    padded = np.full((ROWS, 40, given["reference"].shape[2]), np.nan, np.float32)
    padded[:, :9] = given["reference"]
    wave = decode(
        programs, params, given | {"reference": padded}, reference_lengths=np.full(ROWS, 9)
    )
    np.testing.assert_allclose(wave, offline, rtol=0, atol=2e-6)


def test_lengths_share_programs(programs, params, given, offline):
    longer = {name: np.concatenate([given[name]] * 2, axis=1) for name in ("codes", "noise")}
    before = programs.decode._cache_size()
    for length in (18, 21, 24):
        wave = decode(programs, params, given | longer, length=length)
        assert wave.shape == (ROWS, length * programs.config.samples_per_code)
    assert programs.decode._cache_size() == before


def test_long_decodes_go_through_the_stream(programs, params, given, offline, monkeypatch):
    monkeypatch.setattr(whole_decode_25hz, "BLOCKS", (1, 2, 4))
    monkeypatch.setattr(whole_decode_25hz, "LONG_BLOCKS", 3)
    np.testing.assert_allclose(decode(programs, params, given), offline, rtol=0, atol=2e-6)


# --- noise ---------------------------------------------------------------------------------------


def test_noise_belongs_to_positions_and_rows():
    keys = jax.vmap(jax.random.key)(jnp.array([5, 6]))
    noise = frame_noise(keys, jnp.array([0, 3]), 7, 4)
    assert noise.shape == (2, 7, 4)
    later = frame_noise(keys, jnp.array([2, 5]), 5, 4)
    np.testing.assert_array_equal(later, noise[:, 2:])
    alone = frame_noise(keys[1:], jnp.array([3]), 7, 4)
    np.testing.assert_array_equal(alone, noise[1:])
    assert len(np.unique(noise)) == noise.size


def test_stream_draws_the_noise_of_the_whole_decode(programs, params, given):
    dit, keys = programs.config.dit, jax.vmap(jax.random.key)(jnp.array([5, 6]))
    noise = np.asarray(frame_noise(keys, jnp.zeros(2, jnp.int32), CODES * dit.repeats, dit.n_mels))
    streamed, _ = stream(programs, params, given, CHUNKINGS["ragged"], noise=keys)
    wave = decode(programs, params, given, noise=noise)
    np.testing.assert_allclose(streamed, wave, rtol=0, atol=2e-6)


def test_sizes_of_the_solution_add_up():
    for steps in (2, 3, 10, 33):
        plan = schedule(steps)
        assert plan.features.shape == (steps - 1, 256)
        np.testing.assert_allclose(plan.sizes.sum(), 1, atol=1e-6)
    assert np.all(np.diff(schedule(10).sizes) > 0)
    np.testing.assert_allclose(schedule(5, sway=0).sizes, 0.25, atol=1e-6)


# --- receptive field -----------------------------------------------------------------------------


def test_blocks_depend_on_exactly_their_receptive_field(programs, params):
    """By gradient of one block's mel with respect to the noise of all."""
    dit, blocks, middle = programs.config.dit, 11, 5
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((1, blocks * dit.block, dit.n_mels)).astype(np.float32)
    codes = rng.integers(0, dit.code_entries, (1, blocks * dit.block // dit.repeats))
    field = receptive_field(programs.config, STEPS)
    inside = slice(middle * dit.block, (middle + 1) * dit.block)

    def block_of(noise, params, look_ahead):
        flow = bind(programs.graphdef, params).flow
        voice = flow.condition(jnp.ones((1, dit.xvector_width)), jnp.asarray(noise[:, :9]))
        voice = jax.tree.map(jax.lax.stop_gradient, voice)
        plan = schedule(STEPS)
        if look_ahead is None:
            mel = flow(codes, noise, voice, plan, 0.5)
        else:
            frames = jnp.repeat(codes, dit.repeats, axis=1)
            state = flow.init_state(1, plan.slopes, look_ahead)
            end = jnp.array([noise.shape[1]])
            mel, _ = flow.step(frames, noise, end, voice, plan, 0.5, state, look_ahead)
            mel = mel[:, look_ahead * dit.block :]
        return jnp.sum(jnp.sin(mel[:, inside]))

    for look_ahead, ahead in ((None, field.ahead_blocks), (1, 1)):
        gradient = jax.jit(
            jax.grad(functools.partial(block_of, look_ahead=look_ahead)),
            compiler_options=UNOPTIMIZED,
        )(noise, params)
        by_block = gradient[0].reshape(blocks, -1)
        first, last = reach(by_block, axis=0)
        assert last == middle + ahead
        if look_ahead is None:
            assert (field.back_blocks, field.ahead_blocks) == (4, 2)
            assert first == middle - field.back_blocks


def test_samples_do_not_depend_on_later_mel(programs, params):
    """By gradient of single samples with respect to the mel."""
    vocoder, frames = programs.config.vocoder, 40
    per_frame, right = vocoder.samples_per_frame, programs.module.vocoder.delay
    mel = np.random.default_rng(2).uniform(-8, 0, (1, frames, vocoder.n_mels)).astype(np.float32)

    @functools.partial(jax.jit, compiler_options=UNOPTIMIZED)
    def gradient(params, sample):
        def wave(mel):
            return bind(programs.graphdef, params).vocoder(mel)[0, sample]

        return jax.grad(wave)(mel)[0]

    # Far taps of fourteen filters in a row multiply to less than float32 holds, so the outermost
    # frames show in the layers' own tests only.
    for sample in range(120, 120 + per_frame):
        first, last = reach(gradient(params, sample), axis=0)
        assert first < 120 // per_frame < last <= (sample + right) // per_frame


def test_latency_of_the_class_defaults_and_of_25_hz():
    defaults, consistent = tokenizer_25hz_class_defaults(), tokenizer_25hz()
    assert receptive_field(defaults.decoder, 10).ahead_blocks == 9
    assert receptive_field(defaults.decoder, 10).back_blocks == 18
    assert receptive_field(defaults.decoder, 10).right_samples == 3914
    exact, paper = latency(consistent, 10), latency(consistent, 10, look_ahead=1)
    assert (exact.block_ms, exact.look_ahead_ms, exact.first_codes) == (320, 2880, 80)
    # The report streams its first packet after 16 codes and has blocks of 8.
    assert (paper.look_ahead_ms, paper.first_codes) == (320, 16)
    assert paper.vocoder_ms == pytest.approx(163.08, abs=0.01)
    assert latency(defaults, 10).look_ahead_ms == 2160
    assert latency(defaults, 10, look_ahead=1).first_codes == 24


# --- faults --------------------------------------------------------------------------------------


def test_impossible_requests_are_refused(programs, params, given):
    with pytest.raises(RequestError, match="at least 2"):
        decode(programs, params, given, steps=1)
    with pytest.raises(RequestError, match="look_ahead is -1"):
        stream(programs, params, given, CHUNKINGS["all"], -1)
    running = open_host_stream(programs, params, given["xvector"], given["reference"], steps=STEPS)
    none = np.zeros((ROWS, 0), np.int32)
    noise = np.zeros((ROWS, 0, programs.config.dit.n_mels), np.float32)
    wave, running = step_host_stream(programs, params, none, running, noise, final=True)
    assert wave.shape == (ROWS, 0)
    with pytest.raises(RequestError, match="start a new one"):
        step_host_stream(programs, params, none, running, noise)


def test_blocks_across_codes_cannot_stream():
    programs = DecodePrograms(decoder_config(CASES_BY_NAME["both_ways"].config))
    with pytest.raises(ConfigError, match="multiple of repeats"):
        _ = programs.block_codes
