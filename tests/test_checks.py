"""Checks of single values."""

import numpy as np
import pytest

from qtts_jax.checks import is_whole_number


@pytest.mark.parametrize("value", [0, 3, -1, np.int64(3), np.uint8(3), 2**70])
def test_integers_are_whole_numbers(value):
    assert is_whole_number(value)


@pytest.mark.parametrize(
    "value", [True, np.True_, 3.0, "3", None, [3], np.array([3]), np.float32(3)]
)
def test_booleans_floats_and_arrays_are_none(value):
    assert not is_whole_number(value)


def test_bounds_are_included():
    assert [is_whole_number(n, 1, 3) for n in range(5)] == [False, True, True, True, False]
