"""ELU, and its form for CPUs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.layers import dispatch
from qtts_jax.layers.elu import elu, elu_by_tanh

# Dense around 0, where a difference of 1 loses the digits, and at both ends.
X = np.concatenate([s * np.logspace(-30, 3, 2001) for s in (-1, 1)] + [[0.0, -0.0]])
X = X.astype(np.float32)


def test_the_form_for_cpus_is_as_accurate_as_a_float():
    exact = np.where(X > 0, X, np.expm1(np.minimum(X, 0).astype(np.float64)))
    np.testing.assert_allclose(jax.jit(elu_by_tanh)(X), exact, rtol=4e-7, atol=0)


def test_the_form_for_cpus_has_the_gradient_of_elu():
    gradient, expected = (jax.jit(jax.vmap(jax.grad(f)))(X) for f in (elu_by_tanh, jax.nn.elu))
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_elu_is_its_formula_everywhere(monkeypatch, platform, dtype):
    monkeypatch.setattr(dispatch, "platform", lambda: platform)
    x = jnp.asarray([-np.inf, -3.0, -1e-3, 0.0, 2.0, np.inf], dtype)
    exact = np.asarray(x, np.float64)
    y = elu(x)
    assert y.dtype == dtype
    rtol = 1e-6 if dtype == jnp.float32 else 8e-3
    expected = np.where(exact > 0, exact, np.expm1(np.minimum(exact, 0)))
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=rtol)
    assert np.isnan(elu(jnp.asarray([np.nan], dtype))).all()
