"""The contract helpers, and that the contract's one check can fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.layers.streaming import Streaming, where_rows
from tests.support.contract import verify_streaming


class RunningSum:
    """The smallest layer with memory; a subclass breaks it in one way."""

    def init_state(self, batch, dtype):
        return jnp.zeros((batch, 2), dtype)

    def step(self, x, state):
        y = state[:, None] + jnp.cumsum(x, axis=1)
        return y, y[:, -1]

    def __call__(self, x):
        return self.step(x, self.init_state(x.shape[0], x.dtype))[0]


class Forgets(RunningSum):
    def step(self, x, state):
        return jnp.cumsum(x, axis=1), state


class LooksAhead(RunningSum):
    def step(self, x, state):
        y, state = super().step(x, state)
        return y + 1e-3 * x[:, -1:], state


class MixesRows(RunningSum):
    def step(self, x, state):
        y, state = super().step(x, state)
        return y + x.mean(axis=0, keepdims=True), state


class Grows(RunningSum):
    def init_state(self, batch, dtype):
        return jnp.zeros((batch, 0, 2), dtype)

    def step(self, x, state):
        seen = jnp.concatenate([state, x], axis=1)
        return jnp.cumsum(seen, axis=1)[:, state.shape[1] :], seen


class ChangesType(RunningSum):
    def init_state(self, batch, dtype):
        return jnp.zeros((batch, 2), jnp.float16)


class TimeFirst(RunningSum):
    def init_state(self, batch, dtype):
        return jnp.zeros((2, batch), dtype)

    def step(self, x, state):
        y, state = super().step(x, state.T)
        return y, state.T


class StopsGradients(RunningSum):
    def step(self, x, state):
        return super().step(x, jax.lax.stop_gradient(state))


class IgnoresLengths(RunningSum):
    def step(self, x, state, lengths=None):
        return super().step(x + 0 * x[:, -1:].mean(), state)


X = np.random.default_rng(0).standard_normal((3, 12, 2)).astype(np.float32)


def test_a_layer_that_keeps_the_contract_passes():
    y = verify_streaming(RunningSum(), X)
    np.testing.assert_allclose(y, np.cumsum(X, axis=1), atol=1e-5)
    assert isinstance(RunningSum(), Streaming)


@pytest.mark.parametrize(
    "broken", [Forgets, LooksAhead, MixesRows, Grows, ChangesType, TimeFirst, StopsGradients]
)
def test_a_layer_that_breaks_the_contract_fails(broken):
    with pytest.raises(AssertionError):
        verify_streaming(broken(), X)


def test_padding_that_leaks_fails():
    with pytest.raises(AssertionError):
        verify_streaming(IgnoresLengths(), X, takes_lengths=True)


class SumOfThree(RunningSum):
    """The sum of an input and the two before it."""

    def init_state(self, batch, dtype):
        return jnp.zeros((batch, 2, 2), dtype)

    def step(self, x, state):
        x = jnp.concatenate([state, x], axis=1)
        return x[:, 2:] + x[:, 1:-1] + x[:, :-2], x[:, -2:]


def test_the_declared_receptive_field_must_be_the_measured_one():
    verify_streaming(SumOfThree(), X, receptive_field=3)
    for wrong in (2, 4):
        with pytest.raises(AssertionError):
            verify_streaming(SumOfThree(), X, receptive_field=wrong)


def test_where_rows_chooses_whole_rows_of_every_leaf():
    chosen = {"a": jnp.ones((3, 2)), "b": (jnp.ones((3,), bool),)}
    other = {"a": jnp.zeros((3, 2)), "b": (jnp.zeros((3,), bool),)}
    picked = where_rows(jnp.array([True, False, True]), chosen, other)
    assert picked["a"].tolist() == [[1, 1], [0, 0], [1, 1]]
    assert picked["b"][0].tolist() == [True, False, True]
