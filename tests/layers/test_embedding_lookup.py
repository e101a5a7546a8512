"""Looking rows up: values of an index, gradients of a sum in float32."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.layers import embedding_lookup as module
from qtts_jax.layers.embedding_lookup import lookup, lookup_codebooks


@pytest.fixture
def tables():
    return jax.random.normal(jax.random.key(0), (3, 7, 5))


CODES = jnp.asarray([[0, 6, 3], [0, 2, 3], [5, 2, 3], [0, 0, 3]])


def test_each_book_is_read_at_its_own_codes(tables):
    found = lookup_codebooks(tables, CODES.reshape(2, 2, 3))
    assert found.shape == (2, 2, 3, 5)
    for i, codes in enumerate(np.asarray(CODES)):
        for book, code in enumerate(codes):
            np.testing.assert_array_equal(found[i // 2, i % 2, book], tables[book, code])
    np.testing.assert_array_equal(lookup(tables[0], CODES), tables[0][CODES])


@pytest.mark.parametrize("most", [4096, 3])  # the second: larger tables keep the scatter
def test_gradient_is_that_of_indexing(tables, monkeypatch, most):
    monkeypatch.setattr(module, "MOST_ROWS", most)
    weight = jax.random.normal(jax.random.key(1), (4, 3, 5))

    def ours(tables):
        return jnp.sum(lookup_codebooks(tables, CODES) * weight) + jnp.sum(
            lookup(tables[1], CODES) ** 2
        )

    def plain(tables):
        rows = jnp.stack([tables[i][CODES[:, i]] for i in range(3)], axis=1)
        return jnp.sum(rows * weight) + jnp.sum(tables[1][CODES] ** 2)

    chex.assert_trees_all_close(jax.grad(ours)(tables), jax.grad(plain)(tables), rtol=1e-6)


def test_a_long_sum_of_bfloat16_does_not_stop_growing():
    table = jnp.zeros((4, 2), jnp.bfloat16)
    ids = jnp.zeros(4096, jnp.int32)
    grad = jax.grad(lambda t: jnp.sum(lookup(t, ids).astype(jnp.float32)))(table)
    assert grad.dtype == jnp.bfloat16 and grad[0, 0] == 4096
    scattered = jax.grad(lambda t: jnp.sum(t[ids].astype(jnp.float32)))(table)
    assert scattered[0, 0] < 4096
