"""What a sample of the 25 Hz decoder depends on, by gradient, and the latency that follows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.presets import tokenizer_25hz, tokenizer_25hz_class_defaults
from qtts_jax.functional import bind
from qtts_jax.models.tokenizer_25hz.receptive_field import latency, receptive_field
from qtts_jax.models.tokenizer_25hz.schedule import schedule
from tests.support.contract import reach
from tests.support.decoders_25hz import UNOPTIMIZED
from tests.support.decoding_25hz import STEPS, small_params, small_programs


@pytest.fixture(scope="module", autouse=True)
def _full_float32():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module")
def programs():
    return small_programs()


@pytest.fixture(scope="module")
def params():
    return small_params()


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
