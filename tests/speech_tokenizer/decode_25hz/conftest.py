"""A small decoder, and the whole decode to which others are compared."""

import jax
import pytest

from tests.support.decoding_25hz import decode, given_rows, small_params, small_programs


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


@pytest.fixture(scope="module")
def given(programs):
    return given_rows(programs.config)


@pytest.fixture(scope="module")
def offline(programs, params, given):
    return decode(programs, params, given)
