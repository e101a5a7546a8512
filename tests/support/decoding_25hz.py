"""A small 25 Hz decoder and what it is given: two rows of codes, decoded whole or streamed."""

import functools

import numpy as np

from qtts_jax.speech_tokenizer.host_stream_25hz import open_host_stream, step_host_stream
from qtts_jax.speech_tokenizer.programs_25hz_decode import DecodePrograms
from qtts_jax.speech_tokenizer.whole_decode_25hz import decode_whole
from tests.support.decoders_25hz import CASES_BY_NAME, decoder_config, decoder_params

STEPS = 3  # two network evaluations
ROWS, CODES = 2, 17


@functools.cache
def small_programs():
    """Shared by all tests of a process, since each makes programs of its own."""
    return DecodePrograms(decoder_config(CASES_BY_NAME["ten_steps"].config))


@functools.cache
def small_params():
    return decoder_params(small_programs().config, 77)


def given_rows(config):
    """Codes, speaker features and noise of each row."""
    dit, rng = config.dit, np.random.default_rng(0)
    return {
        "codes": rng.integers(0, dit.code_entries, (ROWS, CODES)),
        "xvector": rng.standard_normal((ROWS, dit.xvector_width)).astype(np.float32),
        "reference": rng.standard_normal((ROWS, 9, dit.n_mels)).astype(np.float32),
        "noise": rng.standard_normal((ROWS, CODES * dit.repeats, dit.n_mels)).astype(np.float32),
    }


def decode(programs, params, given, *, rows=slice(None), length=CODES, lengths=None, **options):
    """The whole decode of some rows, to `length` codes."""
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


CHUNKINGS = {
    "ones": [1] * CODES,
    "one block": [2] * 8 + [1],
    "two blocks": [4] * 4 + [1],
    "three blocks": [6, 6, 5],
    "all": [CODES],
    "ragged": [5, 0, 3, 1, 7, 1, 0],
}
