"""A step over blocks of time, and how many blocks there are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qtts_jax.layers import dispatch
from qtts_jax.layers.conv import Conv
from qtts_jax.layers.time_blocks import step_in_blocks
from tests.support.contract import verify_streaming

CONV = Conv(2, 3, 6, stride=3, edge="replicate", rngs=nnx.Rngs(0))
X = np.random.default_rng(0).standard_normal((3, 36, 2)).astype(np.float32)


@pytest.mark.parametrize("blocks", [2, 3, 12])
def test_blocks_of_time_keep_the_contract(blocks):
    """Chunks that the blocks divide go through in blocks, the others at once."""

    def step(x, state, lengths=None):
        even = x.shape[1] // CONV.stride % blocks == 0
        return step_in_blocks(Conv.step, CONV, x, state, lengths, blocks if even else 1)

    y = verify_streaming(CONV, X, unit=3, step=step, takes_lengths=True)
    np.testing.assert_allclose(y, CONV(X), atol=1e-5)


def test_lengths_are_those_of_each_block():
    """Rows that end before, in and after a block, and at its edge."""

    def step(layer, x, state, lengths):
        return lengths[:, None, None] + 0 * x, state

    run = jax.jit(functools.partial(step_in_blocks, step, CONV, blocks=3))
    y, _ = run(jnp.zeros((5, 12, 1)), (), lengths=jnp.array([0, 3, 4, 9, 12]))
    found = np.asarray(y[:, ::4, 0])
    assert found.tolist() == [[0, 0, 0], [3, 0, 0], [4, 0, 0], [4, 4, 1], [4, 4, 4]]


def test_a_loop_only_of_more_than_one_block_and_without_a_gradient():
    def run(x, blocks):
        state = CONV.init_state(3, x.dtype)
        return step_in_blocks(Conv.step, CONV, x, state, jnp.array([36, 7, 0]), blocks)[0]

    def gradient(x, blocks):
        return jax.grad(lambda x: jnp.sum(run(x, blocks) ** 2))(x)

    loops = {
        (f, blocks): "scan" in str(jax.make_jaxpr(functools.partial(f, blocks=blocks))(X))
        for f in (run, gradient)
        for blocks in (1, 3)
    }
    assert loops == {(run, 1): False, (run, 3): True, (gradient, 1): False, (gradient, 3): False}
    np.testing.assert_allclose(gradient(X, 3), gradient(X, 1), rtol=1e-5, atol=1e-6)


def test_the_fewest_equal_blocks_within_the_bound(monkeypatch):
    monkeypatch.setattr(dispatch, "BLOCK_VALUES", 100)
    assert [dispatch.time_blocks(12, values) for values in (0, 1, 100, 101, 401)] == [1, 1, 1, 2, 6]
    # A prime number of units has no blocks but single units, which are too small.
    assert dispatch.time_blocks(13, 401) == 1
    assert dispatch.time_blocks(5, 401) == 5
    for other in ("gpu", "tpu"):
        monkeypatch.setattr(dispatch, "platform", lambda other=other: other)
        assert dispatch.time_blocks(12, 401) == 1
