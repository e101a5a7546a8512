"""Weights in one byte: rounding, what is quantised, and products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.functional import initialize
from qtts_jax.layers.quantized import Quantized, dense, matrix, product, quantize, quantize_params
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.presets import tiny, tts_12hz


def weight(*shape):
    return jax.random.normal(jax.random.key(0), shape)


def test_int8_values_are_within_half_a_step_of_the_row():
    w = weight(3, 5, 64)
    q = quantize(w, 1, "int8")
    assert q.values.dtype == jnp.int8 and q.scale.shape == (3, 5) and q.shape == w.shape
    np.testing.assert_allclose(q.scale, jnp.abs(w).max(-1) / 127, rtol=1e-6)
    assert jnp.all(jnp.abs(dense(q) - w) <= 0.5001 * q.scale[..., None])


def test_fp8_values_keep_three_bits_after_the_first():
    w = weight(4, 64)
    q = quantize(w, 1, "fp8")
    normal = jnp.abs(w) > q.scale[:, None] * 2**-6
    error = jnp.abs(dense(q) - w) / jnp.abs(w)
    assert jnp.all(jnp.where(normal, error, 0) <= 2**-4 + 1e-6)
    assert jnp.all(jnp.isfinite(dense(q)))


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_rows_of_zeros_stay_zeros(kind):
    q = quantize(jnp.zeros((2, 8)), 1, kind)
    np.testing.assert_array_equal(dense(q), 0)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_products_and_rows_are_those_of_the_dense_weight(kind):
    w, x = weight(6, 2, 4), weight(3, 8)
    q = quantize(w, 2, kind)
    real = dense(q)
    with jax.default_matmul_precision("highest"):
        got = product(x, matrix(q, 8))
        want = x @ real.reshape(6, 8).T
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(dense(q[jnp.array([4, 1])]), real[jnp.array([4, 1])])


def test_only_matrices_and_tables_of_a_model_are_quantised():
    config = tiny(tts_12hz("0b6", "base"))
    params = initialize(TTSModel, config, 0)
    small = quantize_params(TTSModel, config, params, "int8")
    talker, layer = small["talker"], small["talker"]["transformer"]["layers"][0]
    tables = talker["text_embedding"]["table"], talker["codec_embedding"]["table"]
    products = layer["attention"]["qkv"]["kernel"], layer["attention"]["out"]["kernel"]
    for leaf in (*tables, *products, small["code_predictor"]["heads"]):
        assert isinstance(leaf, Quantized)
    assert layer["attention"]["out"]["kernel"].scale.shape == (config.talker.transformer.width,)
    assert not isinstance(layer["attention_norm"]["scale"], Quantized)
    kept = jax.tree.leaves(small["speaker_encoder"])
    assert all(x.dtype == jnp.float32 for x in kept)
