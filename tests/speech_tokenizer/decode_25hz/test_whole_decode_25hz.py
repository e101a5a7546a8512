"""The whole decode of the 25 Hz decoder: rows, padding, and few programs for all lengths."""

import numpy as np
import pytest

from qtts_jax.errors import RequestError
from qtts_jax.speech_tokenizer import whole_decode_25hz
from tests.support.decoding_25hz import CHUNKINGS, CODES, ROWS, decode, stream


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


def test_long_decodes_go_through_the_stream(programs, params, given, offline, monkeypatch):
    monkeypatch.setattr(whole_decode_25hz, "BLOCKS", (1, 2, 4))
    monkeypatch.setattr(whole_decode_25hz, "LONG_BLOCKS", 3)
    np.testing.assert_allclose(decode(programs, params, given), offline, rtol=0, atol=2e-6)


def test_too_few_steps_are_refused(programs, params, given):
    with pytest.raises(RequestError, match="at least 2"):
        decode(programs, params, given, steps=1)
