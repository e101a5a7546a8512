"""The ConvNeXt block in a stream and against its formula."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qtts_jax.modules.convnext import KERNEL, NORM_EPS, ConvNeXt
from tests.support.contract import verify_streaming


def make():
    block = ConvNeXt(6, rngs=nnx.Rngs(0))
    block.scale[...] = jnp.linspace(0.3, 0.9, 6)
    block.norm.bias[...] = jnp.linspace(-1, 1, 6)
    return block


def inputs(steps):
    return np.random.default_rng(0).standard_normal((2, steps, 6)).astype(np.float32)


def test_convnext_streams():
    verify_streaming(make(), inputs(12), receptive_field=KERNEL)


def test_convnext_is_its_formula():
    block, x = make(), inputs(9)
    params = {k: np.asarray(v) for k, v in _flat(block).items()}
    padded = np.pad(x, ((0, 0), (KERNEL - 1, 0), (0, 0)))
    y = sum(padded[:, i : i + 9] * params["depthwise.kernel"][i, 0] for i in range(KERNEL))
    y = y + params["depthwise.bias"]
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + NORM_EPS)
    y = y * params["norm.scale"] + params["norm.bias"]
    y = y @ params["up.kernel"].T + params["up.bias"]
    y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    y = y @ params["down.kernel"].T + params["down.bias"]
    with jax.default_matmul_precision("highest"):
        np.testing.assert_allclose(
            block(jnp.asarray(x)), x + params["scale"] * y, rtol=1e-4, atol=1e-5
        )


def _flat(module):
    return {".".join(map(str, k)): v[...] for k, v in nnx.to_flat_state(nnx.state(module))}
