"""Rows of small embedding tables, whose gradient is a matrix product.

The gradient of an indexed table is a scatter: every position adds its row to one of a few hundred,
in the type of the table, and where that is bfloat16 a long sum of small numbers stops growing. As
a product with one-hot vectors it is a sum in float32, on the matrix units.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

# Tables of more rows keep the scatter: few positions meet in one of their rows.
MOST_ROWS = 4096


def lookup(table: Any, ids: jax.Array) -> Any:
    """table [V, D] at ids [...] int in 0..V-1 -> [..., D]; a stand-in of a table is indexed."""
    if not isinstance(table, jax.Array) or table.shape[0] > MOST_ROWS:
        return table[ids]
    return _rows(table.shape[0], table[None], ids[..., None])[..., 0, :]


def lookup_codebooks(tables: Any, codes: jax.Array) -> Any:
    """Tables [L, V, D], each at its own codes [..., L] in 0..V-1 -> [..., L, D]."""
    if not isinstance(tables, jax.Array) or tables.shape[1] > MOST_ROWS:
        return tables[jnp.arange(codes.shape[-1]), codes]
    return _rows(tables.shape[1], tables, codes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rows(size: int, tables: jax.Array, codes: jax.Array) -> jax.Array:
    return tables[jnp.arange(codes.shape[-1]), codes]


def _forward(size: int, tables: jax.Array, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _rows(size, tables, codes), codes


def _backward(size: int, codes: jax.Array, grad: jax.Array) -> tuple[jax.Array, None]:
    def gradient_of_table(each: tuple[jax.Array, jax.Array]) -> jax.Array:
        codes, rows = each
        chosen = jax.nn.one_hot(codes, size, dtype=rows.dtype)
        return jnp.einsum(
            "nv,nd->vd",
            chosen,
            rows,
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )

    codebooks, width = grad.shape[-2:]
    by_table = codes.reshape(-1, codebooks).T, grad.reshape(-1, codebooks, width).swapaxes(0, 1)
    # One table at a time, for the one-hot vectors of all would be larger than the activations.
    return jax.lax.map(gradient_of_table, by_table).astype(grad.dtype), None


_rows.defvjp(_forward, _backward)
