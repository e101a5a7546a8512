"""The kernels for attention within frames, interpreted, against the plain definition."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.presets import tiny, tts_12hz
from qtts_jax.errors import ConfigError
from qtts_jax.functional import abstract, bind, initialize
from qtts_jax.layers.kernels.frame_attention import fits, frame_attention, plain_attention
from qtts_jax.layers.rope import rope_angles
from qtts_jax.modules.transformer import Transformer
from qtts_jax.training.talker.full_sequence import run_stack
from tests.support.helpers import assert_close

STEPS, HEADS, GROUPS, WIDTH, EPS = 16, 2, 2, 32, 1e-6


def values_and_gradients(function, dtype):
    keys = jax.random.split(jax.random.key(0), 4)
    qkv = jax.random.normal(keys[0], (3, STEPS, HEADS, GROUPS + 2, WIDTH)).astype(dtype)
    scales = [(1 + 0.3 * jax.random.normal(k, (WIDTH,))).astype(dtype) for k in keys[1:3]]
    given = jax.random.normal(keys[3], (3, STEPS, HEADS, GROUPS, WIDTH)).astype(dtype)
    rope = rope_angles(jnp.arange(STEPS)[None], WIDTH, 1e4)

    @jax.jit
    def both(given, *args):
        out, back = jax.vjp(lambda *args: function(*args, rope, EPS), *args)
        return out, *back(given)

    with jax.default_matmul_precision("highest"):
        return both(given, qkv, *scales)


def interpreted(*args):
    return frame_attention(*args, True)


def test_values_and_gradients_equal_the_plain_ones():
    wanted = values_and_gradients(plain_attention, jnp.float32)
    found = values_and_gradients(interpreted, jnp.float32)
    for ours, plain in zip(found, wanted, strict=True):
        assert_close(ours, plain, relative=2e-6)


def test_bfloat16_is_at_least_as_near_to_float32_as_the_plain_layers():
    exact = values_and_gradients(plain_attention, jnp.float32)
    found, plain = (values_and_gradients(f, jnp.bfloat16) for f in (interpreted, plain_attention))
    for ours, theirs, wanted in zip(found, plain, exact, strict=True):
        assert ours.dtype == jnp.bfloat16
        errors = [float(jnp.abs(x.astype(jnp.float32) - wanted).mean()) for x in (ours, theirs)]
        assert errors[0] <= 1.05 * errors[1]


@pytest.fixture(scope="module")
def stack():
    config = tiny(tts_12hz("0b6", "voice_design")).talker.code_predictor.transformer
    config = dataclasses.replace(config, head_dim=32)
    return config, initialize(Transformer, config, seed=0)


def test_a_stack_with_the_kernels_is_the_stack(stack):
    config, params = stack
    x = jax.random.normal(jax.random.key(1), (2, STEPS, config.width))
    graphdef = abstract(Transformer, config)[0]

    def loss(params, x, way):
        module = bind(graphdef, params)
        y = module(x) if way is None else run_stack(module, x, attention=way)
        return jnp.sum(jnp.sin(y))

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=2)
    with jax.default_matmul_precision("highest"):
        wanted = gradient(params, x, None)
        for way in ("plain", "frames"):
            found = gradient(params, x, way)
            scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(wanted[1]))
            for ours, plain in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
                np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5 * scale)


def test_shapes_that_the_kernels_do_not_take(stack):
    config, params = stack
    module = bind(abstract(Transformer, config)[0], params)
    with pytest.raises(ConfigError, match="16 or 32 positions, not 12 positions"):
        run_stack(module, jnp.zeros((1, 12, config.width)), attention="frames")
    assert fits(16, 2, 128) and fits(32, 1, 32)
    assert not any((fits(64, 2, 128), fits(8, 2, 128), fits(16, 3, 128), fits(16, 2, 16)))
