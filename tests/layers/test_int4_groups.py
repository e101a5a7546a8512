"""Weights of four bits: rounding by groups, packing, products, and what a model takes in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.presets import tiny, tts_12hz
from qtts_jax.functional import abstract, cast, initialize
from qtts_jax.layers import dispatch, int4_groups
from qtts_jax.layers.quantized_weights import (
    Quantized,
    dense,
    matrix,
    product,
    quantize,
    quantize_params,
)
from qtts_jax.models.tts_model import TTSModel


def weight(*shape):
    return jax.random.normal(jax.random.key(0), shape)


def steps(q):
    """The absolute scale of every value."""
    group = q.shape[-1] // q.scale.shape[-1]
    return jnp.repeat(jnp.abs(q.scale.astype(jnp.float32)), group, axis=-1)


def test_values_are_within_a_step_of_their_group():
    w = weight(3, 5, 192)
    q = quantize(w, 1, "int4")
    assert q.values.shape == (3, 5, 96) and q.values.dtype == jnp.uint8 and q.packed
    assert q.scale.shape == (3, 5, 6) and q.scale.dtype == jnp.bfloat16 and q.shape == w.shape
    error = jnp.abs(dense(q) - w)
    # Half a step, but where a value is clipped; the end of a grid is at least 0.85 of the largest.
    peak = jnp.repeat(jnp.abs(w).reshape(3, 5, 6, 32).max(-1), 32, axis=-1)
    assert jnp.all(error <= jnp.maximum(steps(q) / 2, 0.16 * peak) * 1.01)
    assert jnp.linalg.norm(error) < 0.09 * jnp.linalg.norm(w)


@pytest.mark.parametrize("sign", [1, -1])
def test_grids_are_exact_and_packing_loses_nothing(sign):
    values = jax.random.randint(jax.random.key(1), (4, 64), -8, 8).at[:, ::32].set(-8)
    scale = sign * 2.0 ** jnp.array([[0, -3], [2, 5], [-9, 1], [0, 0]])
    w = values * jnp.repeat(scale, 32, axis=1)
    q = quantize(w, 1, "int4")
    np.testing.assert_array_equal(dense(q), w)
    np.testing.assert_array_equal(q.scale, scale)


@pytest.mark.parametrize(
    ("width", "group"), [(1024, 32), (96, 32), (48, 16), (24, 8), (20, None), (33, None)]
)
def test_groups_divide_rows_and_other_rows_are_int8(width, group):
    assert int4_groups.group_of(width) == group
    q = quantize(weight(4, width), 1, "int4")
    assert q.shape == (4, width)
    if group is None:
        want = quantize(weight(4, width), 1, "int8")
        np.testing.assert_array_equal(q.values, want.values)
        assert not q.packed
    else:
        assert q.packed and q.scale.shape == (4, width // group)
    assert jnp.linalg.norm(dense(q) - weight(4, width)) < 0.1 * jnp.linalg.norm(weight(4, width))


@pytest.mark.parametrize("as_sum", [True, False], ids=["sum", "product"])
@pytest.mark.parametrize("rows", [(), (1,), (1, 1), (3,), (2, 5)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
def test_products_are_those_of_the_dense_weight(monkeypatch, as_sum, rows, dtype):
    """Also of columns of several dimensions, as those of attention."""
    monkeypatch.setattr(dispatch, "products_as_sums", lambda: as_sum)
    q = quantize(weight(6, 3, 2, 48).astype(dtype), 3, "int4")
    x = jax.random.normal(jax.random.key(1), (*rows, 288)).astype(dtype)
    real = dense(Quantized(q.values, q.scale, jnp.float32)).reshape(6, 288)
    with jax.default_matmul_precision("highest"):
        got = jax.jit(product)(x, matrix(q, 288))
        want = x.astype(jnp.float32) @ real.T
    assert got.dtype == dtype and got.shape == (*rows, 6)
    close = 1e-5 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=close, atol=close * 10)


def test_rows_of_a_matrix_and_rows_under_vmap():
    q, x = quantize(weight(2, 5, 64), 1, "int4"), weight(2, 64)
    with jax.default_matmul_precision("highest"):
        got = jax.vmap(product)(x, q)
        want = jnp.einsum("bd,bnd->bn", x, dense(q))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(dense(q[1, jnp.array([4, 0])]), dense(q)[1, jnp.array([4, 0])])


def test_a_sum_over_bytes_keeps_no_matrix_of_wider_type(monkeypatch):
    """In a loop, too, from which the conversion of a constant could be moved."""
    monkeypatch.setattr(dispatch, "products_as_sums", lambda: True)
    w = jax.eval_shape(lambda: quantize(jnp.ones((512, 512)), 1, "int4"))

    def run(x, w):
        return jax.lax.scan(lambda x, _: (product(x, w), None), x, length=3)[0]

    compiled = jax.jit(run).lower(jnp.ones((1, 512)), w).compile()
    # XLA:CPU splits the bytes first; XLA:GPU has less.
    assert compiled.memory_analysis().temp_size_in_bytes < 1.1 * 512 * 512


def test_which_matrices_are_in_four_bits_and_which_in_eight():
    config = tiny(tts_12hz("0b6", "base"))
    small = quantize_params(TTSModel, config, initialize(TTSModel, config, 0), "int4")
    talker, predictor = small["talker"], small["code_predictor"]
    for model, packed in ((talker, True), (predictor, False)):
        layer = model["transformer"]["layers"][0]
        for part, name in (("attention", "qkv"), ("attention", "out"), ("ffn", "down")):
            assert layer[part][name]["kernel"].packed == packed
        assert not isinstance(layer["ffn_norm"]["scale"], Quantized)
    assert predictor["heads"].packed and predictor["embeddings"].packed
    tables = talker["codec_head"]["kernel"], talker["codec_embedding"]["table"]
    for leaf in (*tables, predictor["input_projection"]["kernel"]):
        assert leaf.values.dtype == jnp.int8


@pytest.mark.parametrize(("size", "most"), [("0b6", 375), ("1b7", 949)])
def test_a_released_size_takes_the_memory_of_the_table(size, most):
    """Megabytes without the text embedding, which is in the host's memory on a GPU."""
    config = tts_12hz(size, "custom_voice")
    shapes = cast_shapes(abstract(TTSModel, config)[1])
    small = jax.eval_shape(lambda p: quantize_params(TTSModel, config, p, "int4"), shapes)
    del small["talker"]["text_embedding"]
    stored = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(small))
    assert 0.98 * most < stored / 1e6 <= most


def cast_shapes(shapes):
    return jax.eval_shape(lambda p: cast(p, jnp.bfloat16), shapes)
