"""Operations of products, convolutions and loops, against counts by hand."""

import jax
import jax.numpy as jnp

from experiments.runner.flops import count_flops

A, B = jnp.ones((4, 5)), jnp.ones((5, 6))


def test_products_and_loops():
    product = 2 * 4 * 5 * 6
    assert count_flops(jnp.matmul, A, B) == product
    assert count_flops(jax.jit(lambda a, b: jnp.tanh(a @ b) + 1), A, B) == product

    def loop(a, b):
        return jax.lax.scan(lambda c, _: ((c @ b) @ b.T, None), a, length=3)[0]

    assert count_flops(loop, A, B) == 3 * 2 * product


def test_a_gradient_is_two_more_products():
    def loss(a, b):
        return jnp.sum((a @ b) ** 2)

    assert count_flops(jax.grad(loss, argnums=(0, 1)), A, B) == 3 * 2 * 4 * 5 * 6


def test_the_dearer_branch_counts():
    def either(a, b):
        return jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: jnp.zeros((4, 6)))

    assert count_flops(either, A, B) == 2 * 4 * 5 * 6


def test_a_convolution_and_its_transpose():
    x, kernel = jnp.ones((2, 16, 3)), jnp.ones((4, 3, 7))
    numbers = ("NWC", "WIO", "NWC")
    forward = jax.lax.conv_general_dilated
    assert count_flops(
        lambda x, k: forward(x, k, (4,), "VALID", dimension_numbers=numbers), x, kernel
    ) == (2 * 4 * 3 * (2 * 4 * 7))
    # Each input meets every tap once, whatever the stride.
    assert count_flops(
        lambda x, k: jax.lax.conv_transpose(x, k, (4,), "SAME", dimension_numbers=numbers),
        x, kernel,
    ) == (2 * 4 * 3 * 7 * 2 * 16)  # fmt: skip
