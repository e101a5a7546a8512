"""Lookup in small embedding tables with a matrix product as its gradient.

The gradient of an indexed table is a scatter-add in the type of the table, and in bfloat16 a long
sum of small numbers stops growing. As a product with one-hot vectors it is a sum in float32, on the
matrix units.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange

# Larger tables keep the scatter: few positions share a row.
MOST_ROWS = 4096


def lookup(table: Any, ids: jax.Array) -> Any:
    """table [V, D] at ids [...] int in 0..V-1 -> [..., D]; other kinds of table are indexed."""
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

    # Leading axes become one: [L, N] and [L, N, D].
    by_table = rearrange(codes, "... l -> l (...)"), rearrange(grad, "... l d -> l (...) d")
    # One table at a time: the one-hot vectors of all would be larger than the activations.
    return jax.lax.map(gradient_of_table, by_table).astype(grad.dtype), None


_rows.defvjp(_forward, _backward)
