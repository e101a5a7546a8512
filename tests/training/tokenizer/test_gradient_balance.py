"""Weights as shares of the gradient, against their formula."""

import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.training.tokenizer.gradient_balance import balanced, first_norms, weighted

WEIGHTS = {"a": 1.0, "b": 3.0}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def draw(rng, scale):
    return (scale * rng.standard_normal((4, 10))).astype(np.float32)


def test_plain_weights_give_the_sum(rng):
    a, b = draw(rng, 1), draw(rng, 1)
    np.testing.assert_allclose(weighted({"a": a, "b": b}, WEIGHTS), a + 3 * b, rtol=1e-6)


def test_shares_are_those_of_a_loop(rng):
    norms, sums, counts = first_norms(WEIGHTS), dict.fromkeys(WEIGHTS, 0.0), 0.0
    for _ in range(3):
        gradients = {"a": draw(rng, 1e-3), "b": draw(rng, 50.0)}
        found, norms = balanced(gradients, WEIGHTS, norms, 0.9)
        counts = 0.9 * counts + 0.1
        expected = 0
        for name, g in gradients.items():
            own = [np.linalg.norm(len(g) * row) for row in g]
            sums[name] = 0.9 * sums[name] + 0.1 * np.sqrt(np.mean(np.square(own)))
            expected = expected + WEIGHTS[name] / 4 * g / (sums[name] / counts)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_larger_batch_has_the_same_shares(rng):
    g = {"a": draw(rng, 1), "b": draw(rng, 7)}
    twice = {name: np.concatenate([x, x]) / 2 for name, x in g.items()}  # means over more rows
    one, many = (balanced(x, WEIGHTS, first_norms(WEIGHTS), 0.9)[0] for x in (g, twice))
    np.testing.assert_allclose(many, np.concatenate([one, one]) / 2, rtol=1e-5)


def test_absent_loss_leaves_its_share_to_the_others(rng):
    a, nothing = draw(rng, 1), jnp.zeros((4, 10))
    found, norms = balanced({"a": a, "b": nothing}, WEIGHTS, first_norms(WEIGHTS), 0.9)
    np.testing.assert_allclose(np.linalg.norm(4 * found) / 2, 1, rtol=1e-5)
    assert not np.any(norms["b"])
