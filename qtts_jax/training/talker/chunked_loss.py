"""A loss summed over chunks of rows, each of which has its gradients before the next begins."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Devices read rows of 16 bytes; chunks of a size that is a multiple of this stay so.
ALIGNED = 8
Chunk = Callable[[Any, Any, Any], tuple[jax.Array, jax.Array]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def sum_of_chunks(
    function: Chunk, size: int, params: Any, given: Any, targets: Any
) -> tuple[jax.Array, jax.Array]:
    """Sums of `function(params, rows of given, rows of targets)` over chunks of rows.

    A loss is a sum, so the gradients of a chunk do not depend on the others: they are computed
    right after its values, whose memory is then free. `jax.checkpoint` would compute the values
    again, a third more work.

    Args:
        function: gives a loss and a figure without gradient, both sums over rows and 0 for rows
            of zeros, which fill up the last chunk. Closes over no traced arrays.
        size: most rows of a chunk; all get the same number, so that few are filled up.
        params: float32, shared by all rows.
        given: arrays [N, ...] with gradients.
        targets: arrays [N, ...] without.

    Returns:
        The two sums, float32 scalars.
    """

    def one(total: Any, item: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(params, *item)), None

    zeros = (jnp.zeros((), jnp.float32),) * 2
    return jax.lax.scan(one, zeros, _split((given, targets), size))[0]


def _forward(
    function: Chunk, size: int, params: Any, given: Any, targets: Any
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    gradient = jax.value_and_grad(function, (0, 1), has_aux=True)

    def one(total: Any, item: Any) -> tuple[Any, Any]:
        values, (to_params, to_given) = gradient(params, *item)
        return jax.tree.map(jnp.add, total, (values, to_params)), to_given

    zeros = ((jnp.zeros((), jnp.float32),) * 2, jax.tree.map(jnp.zeros_like, params))
    (values, to_params), to_given = jax.lax.scan(one, zeros, _split((given, targets), size))

    def join(x: jax.Array, like: jax.Array) -> jax.Array:
        return x.reshape(-1, *x.shape[2:])[: len(like)]

    return values, (to_params, jax.tree.map(join, to_given, given))


def _backward(function: Chunk, size: int, kept: Any, out: Any) -> tuple[Any, Any, None]:
    scaled = jax.tree.map(lambda x: (out[0] * x).astype(x.dtype), kept)
    return (*scaled, None)


sum_of_chunks.defvjp(_forward, _backward)


def _split(items: Any, size: int) -> Any:
    """Arrays [N, ...] as [chunks, rows, ...]; what is missing in the last chunk is zeros."""
    rows = len(jax.tree.leaves(items)[0])
    count = -(-rows // size)
    each = -(-rows // count)
    if size % ALIGNED == 0:
        each += -each % ALIGNED

    def split(x: jax.Array) -> jax.Array:
        filled = jnp.pad(x, ((0, count * each - rows),) + ((0, 0),) * (x.ndim - 1))
        return filled.reshape(count, each, *x.shape[1:])

    return jax.tree.map(split, items)
