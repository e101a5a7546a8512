"""Decoder of the 25 Hz tokenizer: official numbers, noise and the steps of the solution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.functional import bind
from qtts_jax.layers.stream_position import full_span
from qtts_jax.models.tokenizer_25hz.schedule import frame_noise, schedule
from qtts_jax.speech_tokenizer.programs_25hz_decode import decode_programs
from tests.support.decoders_25hz import (
    CASES,
    UNOPTIMIZED,
    decoder_config,
    decoder_params,
    golden_config,
)
from tests.support.helpers import assert_close

SEED = 1234


@pytest.fixture(scope="module", autouse=True)
def _full_float32():
    with jax.default_matmul_precision("highest"):
        yield


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


def test_noise_belongs_to_positions_and_rows():
    keys = jax.vmap(jax.random.key)(jnp.array([5, 6]))
    noise = frame_noise(keys, jnp.array([0, 3]), 7, 4)
    assert noise.shape == (2, 7, 4)
    later = frame_noise(keys, jnp.array([2, 5]), 5, 4)
    np.testing.assert_array_equal(later, noise[:, 2:])
    alone = frame_noise(keys[1:], jnp.array([3]), 7, 4)
    np.testing.assert_array_equal(alone, noise[1:])
    assert len(np.unique(noise)) == noise.size


def test_sizes_of_the_solution_add_up():
    for steps in (2, 3, 10, 33):
        plan = schedule(steps)
        assert plan.features.shape == (steps - 1, 256)
        np.testing.assert_allclose(plan.sizes.sum(), 1, atol=1e-6)
    assert np.all(np.diff(schedule(10).sizes) > 0)
    np.testing.assert_allclose(schedule(5, sway=0).sizes, 0.25, atol=1e-6)
