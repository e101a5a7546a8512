"""Weights in one byte or four bits: rounding, what is quantised, and products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.presets import tiny, tts_12hz
from qtts_jax.errors import RequestError
from qtts_jax.functional import abstract, bind, computation_dtype, initialize, matmul_precision
from qtts_jax.layers import storage_policy
from qtts_jax.layers.quantized_weights import (
    STORED,
    Quantized,
    dense,
    halver,
    matrix,
    product,
    quantize,
    quantize_params,
    split_product,
    storage,
)
from qtts_jax.models.tts_model import TTSModel


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


@pytest.mark.parametrize("kind", STORED)
def test_rows_of_zeros_stay_zeros(kind):
    q = quantize(jnp.zeros((2, 8)), 1, kind)
    np.testing.assert_array_equal(dense(q), 0)


@pytest.mark.parametrize("kind", STORED)
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


@pytest.mark.parametrize("rows", [(1,), (2,), (3, 5), (130,)])
def test_a_float32_product_with_bfloat16_weights_loses_nothing(rows):
    w = weight(96, 256).astype(jnp.bfloat16)
    spread = jnp.exp(3 * jax.random.normal(jax.random.key(2), (*rows, 256)))
    x = spread * jax.random.normal(jax.random.key(1), (*rows, 256))
    wide, x64 = (np.asarray(t.astype(jnp.float32), np.float64) for t in (w, x))
    with jax.default_matmul_precision("highest"):
        got = jax.jit(split_product)(x, w)
    assert got.dtype == jnp.float32
    # Against the sum of absolute terms: bfloat16 alone errs by 1e-3, two of the parts by 1e-5.
    error = np.abs(got - x64 @ wide.T) / (np.abs(x64) @ np.abs(wide).T)
    assert error.max() < 1e-6


def bfloat16_values(params):
    return jax.tree.map(lambda x: jax.lax.reduce_precision(x, 8, 7), params)


def test_only_matrices_that_bfloat16_holds_exactly_are_halved():
    config = tiny(tts_12hz("0b6", "base"))
    params = bfloat16_values(initialize(TTSModel, config, 0))
    store = halver(TTSModel, config)
    path = ("talker", "codec_embedding", "table")
    table = params["talker"]["codec_embedding"]["table"]
    half = store(path, table)
    assert half.values.dtype == jnp.bfloat16 and half.dtype == jnp.float32
    np.testing.assert_array_equal(dense(half), table)
    np.testing.assert_array_equal(dense(half[jnp.array([2, 0])]), table[jnp.array([2, 0])])
    trained = table.at[0, 0].add(1e-4)
    assert store(path, trained) is trained
    norm = params["talker"]["transformer"]["norm"]["scale"]
    assert store(("talker", "transformer", "norm", "scale"), norm) is norm
    assert computation_dtype({"a": half}) == jnp.float32


def test_a_halved_model_computes_what_the_float32_model_does():
    config = tiny(tts_12hz("0b6", "base"))
    params = bfloat16_values(initialize(TTSModel, config, 0))
    store = halver(TTSModel, config)
    small = jax.tree_util.tree_map_with_path(
        lambda path, x: store(tuple(str(key.key) for key in path), x), params
    )
    graphdef, _ = abstract(TTSModel, config)

    @jax.jit
    def run(params):
        with matmul_precision(params):
            model = bind(graphdef, params)
            x = model.talker.embed_text(jnp.arange(5)[None]) + model.talker.embed_codec(
                jnp.arange(5)[None]
            )
            state = model.talker.init_state(1, x.dtype, 8)
            y, state = model.talker.step(x, state)
            y, _ = model.talker.step(y[:, -1:], state)
            codes, total = model.code_predictor.generate(
                y[:, 0], x[:, 0], lambda logits, _: jnp.argmax(logits, axis=-1)
            )
            return model.talker.logits(y), total, codes

    for got, want in zip(run(small), run(params), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * float(jnp.abs(want).max()))


def test_float32_models_are_halved_where_the_processor_gains_by_it(monkeypatch):
    config = tiny(tts_12hz("0b6", "base"))
    monkeypatch.setattr(storage_policy, "exact_half_weights", lambda: True)
    assert storage(TTSModel, config, jnp.bfloat16, None) is None
    assert storage(TTSModel, config, jnp.float32, None) is not None
    monkeypatch.setattr(storage_policy, "exact_half_weights", lambda: False)
    assert storage(TTSModel, config, jnp.float32, None) is None
    with pytest.raises(RequestError, match="'int8', 'fp8' or 'int4', not 'int2'"):
        storage(TTSModel, config, jnp.float32, "int2")
