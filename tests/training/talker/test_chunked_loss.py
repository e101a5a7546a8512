"""Losses in chunks with their gradients, and products with gradients in the inputs' types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.training.talker.chunked_loss import sum_of_chunks
from qtts_jax.training.talker.mixed_einsum import mixed_einsum

ROWS = 21


def chunk(params, given, targets):
    (x,), (y, weight) = given, targets
    error = jnp.square(jnp.tanh(x @ params["w"]) - y[:, None]).sum(axis=-1)
    return jnp.sum(error * weight), jnp.sum((error > 1) * weight)


def data():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.standard_normal((5, 3)), jnp.float32)}
    given = (jnp.asarray(rng.standard_normal((ROWS, 5)), jnp.float32),)
    return params, given, (jnp.arange(ROWS) % 4, jnp.asarray(rng.random(ROWS), jnp.float32))


@pytest.mark.parametrize("size", [1, 4, 8, 16, 21])
def test_chunks_sum_to_the_whole_with_the_same_gradients(size):
    params, given, targets = data()

    def loss(params, given, chunked):
        if not chunked:
            values = chunk(params, given, targets)
        else:
            values = sum_of_chunks(chunk, size, params, given, targets)
        # The second figure has no gradient, whatever is done with it.
        return 0.3 * values[0], values

    gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True), static_argnums=2)
    found, wanted = gradient(params, given, True), gradient(params, given, False)
    alone = jax.jit(lambda *args: sum_of_chunks(chunk, size, *args))(params, given, targets)
    found, wanted = (found, alone), (wanted, wanted[1])
    for ours, plain in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)


def test_nothing_is_computed_twice():
    """The products of a chunk: one forwards, two backwards, none for values alone beyond one."""
    params, given, targets = data()

    def loss(params, given):
        return sum_of_chunks(chunk, 8, params, given, targets)[0]

    gradient = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(params, given))
    assert gradient.count("dot_general") == 3
    assert str(jax.make_jaxpr(jax.jit(loss))(params, given)).count("dot_general") == 1


@pytest.mark.parametrize("subscripts", ["bqd,qvd->bqv", "bfd,vd->bfv"])
def test_mixed_einsums(subscripts):
    shapes = {"bqd,qvd->bqv": ((3, 4, 5), (4, 6, 5)), "bfd,vd->bfv": ((3, 4, 5), (6, 5))}
    a, b = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate(shapes[subscripts]))

    def run(product, *args):
        out, back = jax.vjp(lambda *args: product(subscripts, *args), *args)
        return out, *back(jnp.cos(out))

    with jax.default_matmul_precision("highest"):
        for ours, plain in zip(run(mixed_einsum, a, b), run(jnp.einsum, a, b), strict=True):
            np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)
    half = [x.astype(jnp.bfloat16) for x in (a, b)]
    out, *back = run(mixed_einsum, *half)
    assert out.dtype == jnp.float32 and {x.dtype for x in back} == {jnp.dtype("bfloat16")}
    # No float32 copy of an input is multiplied on the way back.
    jaxpr = jax.make_jaxpr(lambda *args: run(mixed_einsum, *args))(*half)
    products = [e for e in jaxpr.eqns if e.primitive.name == "dot_general"]
    assert len(products) == 2
    assert {v.aval.dtype for e in products for v in e.invars} == {jnp.dtype("bfloat16")}
