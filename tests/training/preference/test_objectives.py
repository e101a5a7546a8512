"""Objectives of preference and policy optimization on distributions that can be written down."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.training.preference.groups import best_and_worst, group_advantages
from qtts_jax.training.preference.objectives import Clip, dpo, grpo, gspo, kl_to_reference


def test_dpo_finds_the_distribution_whose_rewards_gave_the_preferences():
    """Its optimum is the reference times exp(reward / beta) (Rafailov et al., equation 4)."""
    beta, rewards = 0.5, jnp.asarray([0.3, -0.4, 0.1, 0.0, -0.2])
    reference = jax.nn.log_softmax(jnp.asarray([0.5, 1.0, -1.0, 0.0, 0.2]))
    first, second = (x.ravel() for x in jnp.indices((5, 5)))
    preferred = jax.nn.sigmoid(rewards[first] - rewards[second])

    @jax.jit
    def loss(logits):
        ratio = jax.nn.log_softmax(logits) - reference
        margin = ratio[first] - ratio[second]
        return jnp.mean(preferred * dpo(margin, beta) + (1 - preferred) * dpo(-margin, beta))

    logits, slope = reference, jax.jit(jax.grad(loss))
    for _ in range(400):
        logits = logits - 20 * slope(logits)
    wanted = jax.nn.log_softmax(reference + rewards / beta)
    np.testing.assert_allclose(jax.nn.log_softmax(logits), wanted, atol=1e-4)
    better, worse = 0, 1
    assert wanted[better] - wanted[worse] > reference[better] - reference[worse] + 1


def sequences():
    """Ratios around the bounds, sequences of unlike lengths, advantages of both signs."""
    rng = np.random.default_rng(0)
    log_ratio = rng.normal(0, 0.3, (6, 5)).astype(np.float32)
    present = np.arange(5) < np.asarray([[5], [3], [1], [4], [2], [5]])
    advantage = np.asarray([1.0, -0.5, 0.7, -1.2, 0.4, 0.0], np.float32)
    return log_ratio, present, advantage


@pytest.mark.parametrize("objective", [gspo, grpo])
def test_gradients_equal_finite_differences(objective):
    log_ratio, present, advantage = sequences()

    def total(x):
        return jnp.sum(objective(x, present, advantage, Clip(0.1, 0.15))[0])

    found, wanted = jax.grad(total)(jnp.asarray(log_ratio)), np.zeros(log_ratio.shape)
    program = jax.jit(total)
    for at in np.ndindex(log_ratio.shape):
        step = np.zeros_like(log_ratio)
        step[at] = 4e-3
        wanted[at] = (program(log_ratio + step) - program(log_ratio - step)) / 8e-3
    np.testing.assert_allclose(found, wanted, atol=3e-4)
    assert np.abs(wanted).max() > 0.1
    clipped = objective(log_ratio, present, advantage, Clip(0.1, 0.15))[1]
    assert 0 < clipped.mean() < 1


def test_gspo_is_the_written_formula():
    log_ratio, present, advantage = sequences()
    gain, clipped = gspo(log_ratio, present, advantage, Clip(0.1, 0.15))
    for i in range(len(gain)):
        s = np.exp(log_ratio[i][present[i]].sum() / present[i].sum())
        free, bounded = s * advantage[i], np.clip(s, 0.9, 1.15) * advantage[i]
        np.testing.assert_allclose(gain[i], min(free, bounded), rtol=1e-5)
        assert bool(clipped[i]) == (bounded < free)


def test_the_divergence_estimate_is_not_biased_and_never_negative():
    policy, reference = (
        jax.nn.log_softmax(jnp.asarray(x)) for x in ([0.2, 1.0, -0.5], [0.9, 0.1, 0.0])
    )
    found = kl_to_reference(policy[:, None], reference[:, None], jnp.ones((3, 1), bool))
    assert (found >= 0).all()
    exact = jnp.sum(jnp.exp(policy) * (policy - reference))
    np.testing.assert_allclose(jnp.sum(jnp.exp(policy) * found), exact, rtol=1e-5)


def test_advantages_are_differences_to_the_group_and_flat_groups_are_skipped():
    rewards = np.asarray([1.0, 3.0, 2.0, 2.0, 0.0, 0.002])
    advantage, kept = group_advantages(rewards, 2)
    np.testing.assert_allclose(advantage, [-1, 1, 0, 0, -0.001, 0.001], atol=1e-7)
    assert kept.tolist() == [True, True, False, False, True, True]


def test_pairs_are_the_best_and_worst_of_groups_that_differ_enough():
    rewards = np.asarray([1.0, 3.0, 2.0, 5.0, 5.0, 5.0, 0.0, 0.3, 0.1])
    assert best_and_worst(rewards, 3, 0.5) == [(1, 0)]
    assert best_and_worst(rewards, 3, 0.0) == [(1, 0), (7, 6)]


def test_several_pairs_of_a_group_are_the_next_best_and_worst():
    rewards = np.asarray([1.0, 3.0, 2.0, 5.0, 4.0, 4.0])
    assert best_and_worst(rewards, 6, 0.0, 2) == [(3, 0), (4, 2)]
    assert best_and_worst(rewards, 6, 0.5, 9) == [(3, 0), (4, 2), (5, 1)]
    assert best_and_worst(rewards, 6, 2.0, 9) == [(3, 0)]
