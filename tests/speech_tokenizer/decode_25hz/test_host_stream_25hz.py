"""Streams of the 25 Hz decoder: the audio of the whole decode, as early as it depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.errors import ConfigError, RequestError
from qtts_jax.models.tokenizer_25hz.receptive_field import receptive_field
from qtts_jax.models.tokenizer_25hz.schedule import frame_noise, schedule
from qtts_jax.speech_tokenizer.host_stream_25hz import open_host_stream, step_host_stream
from qtts_jax.speech_tokenizer.programs_25hz_decode import DecodePrograms
from tests.support.decoders_25hz import CASES_BY_NAME, decoder_config
from tests.support.decoding_25hz import CHUNKINGS, CODES, ROWS, STEPS, decode, stream


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
    # It is another result: blocks beyond the next have no influence.
    assert np.abs(first - offline).max() > 1e-4


def test_enough_look_ahead_is_exact(programs, params, given, offline):
    needed = receptive_field(programs.config, STEPS).ahead_blocks
    assert needed == 2
    wave, _ = stream(programs, params, given, CHUNKINGS["three blocks"], needed + 3)
    np.testing.assert_allclose(wave, offline, rtol=0, atol=2e-6)


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


def test_stream_draws_the_noise_of_the_whole_decode(programs, params, given):
    dit, keys = programs.config.dit, jax.vmap(jax.random.key)(jnp.array([5, 6]))
    noise = np.asarray(frame_noise(keys, jnp.zeros(2, jnp.int32), CODES * dit.repeats, dit.n_mels))
    streamed, _ = stream(programs, params, given, CHUNKINGS["ragged"], noise=keys)
    wave = decode(programs, params, given, noise=noise)
    np.testing.assert_allclose(streamed, wave, rtol=0, atol=2e-6)


def test_impossible_streams_are_refused(programs, params, given):
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
