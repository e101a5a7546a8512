"""Count and sum of the vectors that are assigned to each entry of a codebook."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from qtts_jax.layers.rvq import entry_blocks


def count_and_sum(
    vectors: jax.Array, codes: jax.Array, entries: int
) -> tuple[jax.Array, jax.Array]:
    """Number and sum of the vectors of each entry.

    Products with one-hot rows, since a scatter-add on a GPU gives other bits on every run; of a
    block of entries at a time, so that memory does not grow with the codebook.

    Args:
        vectors: [N, d] float32, finite.
        codes: [N] int, the entry of each; -1 for a vector that does not count.
        entries: number V of entries.

    Returns:
        [V] and [V, d] float32.
    """
    blocks, size = entry_blocks(vectors.shape[0], entries)

    def block(start: int | jax.Array) -> tuple[jax.Array, jax.Array]:
        chosen = jax.nn.one_hot(codes - start, size, dtype=jnp.float32)  # [N, size]
        total = jnp.matmul(chosen.T, vectors, precision=jax.lax.Precision.HIGHEST)
        return jnp.sum(chosen, axis=0), total

    if blocks == 1:
        return block(0)
    counts, sums = jax.lax.map(block, size * jnp.arange(blocks))  # [blocks, size (, d)]
    return counts.reshape(-1)[:entries], sums.reshape(-1, vectors.shape[1])[:entries]
