"""SnakeBeta and its fast squared sine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qtts_jax.layers.snake import SnakeBeta, sin_squared


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 3000.0])
def test_squared_sine_is_accurate(scale):
    x = (np.random.default_rng(0).standard_normal(100_000) * scale).astype(np.float32)
    expected = np.sin(x.astype(np.float64)) ** 2
    # At a large angle one unit in the last place of x is itself worth this much.
    allowed = 4e-7 + np.spacing(np.float32(np.abs(x).max()))
    assert np.abs(np.asarray(jax.jit(sin_squared)(x)) - expected).max() < allowed


def test_squared_sine_at_the_joints_of_its_reduction():
    x = np.arange(-50, 51) * np.pi / 2
    x = np.concatenate([x - 1e-4, x, x + 1e-4]).astype(np.float32)
    np.testing.assert_allclose(sin_squared(x), np.sin(x.astype(np.float64)) ** 2, atol=4e-7)


def test_gradient_of_squared_sine_is_the_sine_of_twice_the_angle():
    x = np.linspace(-20, 20, 1001).astype(np.float32)
    gradient = jax.vmap(jax.grad(sin_squared))(x)
    np.testing.assert_allclose(gradient, np.sin(2 * x.astype(np.float64)), atol=5e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_snake_is_its_formula(dtype):
    rng = np.random.default_rng(0)
    layer = SnakeBeta(4, rngs=nnx.Rngs(0))
    alpha, beta = rng.standard_normal((2, 4)).astype(np.float32)
    layer.alpha[...], layer.beta[...] = jnp.asarray(alpha), jnp.asarray(beta)
    x = jnp.asarray(rng.standard_normal((2, 9, 4)) * 3, dtype)
    exact = np.asarray(x, np.float64)
    expected = exact + np.sin(np.exp(alpha) * exact) ** 2 / (np.exp(beta) + 1e-9)
    y = layer(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(
        np.asarray(y, np.float64), expected, rtol=1e-5 if dtype == jnp.float32 else 8e-3, atol=1e-6
    )
