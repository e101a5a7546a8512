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


def test_shares_of_clips_that_agree_leave_doubt():
    """Against the limits of Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for yes, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = estimate([(1.0, 1)] * yes + [(0.0, 1)] * (count - yes))
        assert found.value == pytest.approx(yes / count)
        assert (found.low, found.high) == (
            pytest.approx(low, abs=5e-5),
            pytest.approx(high, abs=5e-5),
        )
    assert estimate([(1.0, 1)] * 20).low == pytest.approx(1 - 0.1611, abs=5e-5)
    assert estimate([(1.0, 1)] * 50).high == 1.0 and estimate([(0.0, 1)] * 50).low == 0.0


def test_equal_clips_leave_no_doubt_and_draws_repeat():
    same = estimate([(0.5, 1)] * 5)
    assert (same.value, same.low, same.high) == (0.5, 0.5, 0.5)
    mixed = [(float(i), 1) for i in range(7)]
    assert estimate(mixed) == estimate(mixed)
