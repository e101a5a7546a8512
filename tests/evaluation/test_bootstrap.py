import numpy as np
import pytest

from qtts_jax.evaluation.bootstrap import estimate


def test_ratio_is_that_of_the_sums():
    found = estimate([(1, 2), (0, 10), (3, 4)])
    assert found.value == pytest.approx(4 / 16)
    assert found.clips == 3


def test_interval_of_a_mean_is_that_of_its_normal_approximation():
    values = np.random.default_rng(3).normal(5, 2, 400)
    found = estimate([(float(v), 1) for v in values])
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_equal_clips_leave_no_doubt_and_draws_repeat():
    same = estimate([(0.5, 1)] * 5)
    assert (same.value, same.low, same.high) == (0.5, 0.5, 0.5)
    mixed = [(float(i), 1) for i in range(7)]
    assert estimate(mixed) == estimate(mixed)
