"""Residual vector quantization, split into semantic and acoustic codebooks.

Codebooks are stored as their moving averages: per entry the sum of the vectors assigned to it and
the (decayed) number of them; the entry itself is their quotient.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from qtts_jax.configs.tokenizer_12hz import QuantizerConfig
from qtts_jax.layers.linear import Linear
from qtts_jax.layers.param import constant, normal, param

# The smallest count an entry is divided by (upstream `epsilon`).
MIN_USAGE = 1e-5
# Most values of a table of vectors by entries, 128 MiB of float32: every vector against 32768
# entries would take gigabytes.
TABLE_VALUES = 1 << 25


class RVQ(nnx.Module):
    """Residual quantizer: each codebook quantizes the error that the ones before it leave.

    Args:
        codebooks: number Q of codebooks.
        trainable_start: keep the encoder's flags `initialized` [Q, 1], 1 once k-means has given a
            codebook its first entries.
        projected: whether the two projections between model width and code width exist.
    """

    def __init__(
        self,
        config: QuantizerConfig,
        codebooks: int,
        *,
        trainable_start: bool,
        projected: bool,
        rngs: nnx.Rngs,
    ) -> None:
        c, outer, inner = config, ("embed",), ("code",)
        self.input_projection, self.output_projection = (
            Linear((i,), (o,), i_axes, o_axes, rngs=rngs) if projected else None
            for i, o, i_axes, o_axes in (
                (c.model_width, c.width, outer, inner),
                (c.width, c.model_width, inner, outer),
            )
        )
        shape = (codebooks, c.entries, c.width)
        self.embed_sum = param(rngs, shape, ("book", "entry", "code"), normal(1.0))
        self.usage = param(rngs, shape[:2], ("book", "entry"), constant(1.0))
        self.initialized = (
            param(rngs, (codebooks, 1), ("book", None), constant(1.0)) if trainable_start else None
        )

    def encode(self, x: jax.Array, codebooks: int) -> jax.Array:
        """Indices of the nearest entries, in float32 whatever the dtype of x.

        Args:
            x: [B, T, D].
            codebooks: number Q of codebooks to use, the first of those stored.

        Returns:
            [B, T, Q] int32.
        """
        residual = x if self.input_projection is None else self.input_projection(x)
        # Of all stored books. A scan over a slice copies it first: on a CPU, a quarter of the time.
        tables = self.embed_sum[...], self.usage[...]  # [Q, V, d], [Q, V]

        def quantize(residual: jax.Array, book: jax.Array) -> tuple[jax.Array, jax.Array]:
            averages = (jax.lax.dynamic_index_in_dim(t, book, keepdims=False) for t in tables)
            entries = divide(*averages)  # [V, d]
            codes = nearest(residual, entries)  # [B, T]
            return residual - entries[codes], codes

        books = jnp.arange(codebooks)
        codes = jax.lax.scan(quantize, residual.astype(jnp.float32), books)[1]  # [Q, B, T]
        return rearrange(codes, "q b t -> b t q")

    def decode(self, codes: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Sum of the entries named by codes [B, T, Q], projected: [B, T, D] of `dtype`."""
        q = jnp.arange(codes.shape[-1])
        entries = divide(self.embed_sum[...][q, codes], self.usage[...][q, codes])  # [B, T, Q, d]
        x = jnp.sum(entries, axis=-2).astype(dtype)  # [B, T, d]
        return x if self.output_projection is None else self.output_projection(x)


class SplitRVQ(nnx.Module):
    """Semantic and acoustic codebooks: two residual quantizers of the same vector.

    The acoustic codebooks quantize the vector itself, not the error of the semantic one; the
    decoded vectors are added (upstream `SplitResidualVectorQuantizer`).
    """

    def __init__(
        self, config: QuantizerConfig, *, trainable_start: bool, projected: bool, rngs: nnx.Rngs
    ) -> None:
        self.config = config
        sizes = (config.semantic, config.books - config.semantic)
        self.semantic, self.acoustic = (
            RVQ(config, n, trainable_start=trainable_start, projected=projected, rngs=rngs)
            for n in sizes
        )

    def encode(self, x: jax.Array, codebooks: int) -> jax.Array:
        """x [B, T, D] -> codes [B, T, Q] int32, semantic codebooks first."""
        first = min(codebooks, self.config.semantic)
        semantic = self.semantic.encode(x, first)
        acoustic = self.acoustic.encode(x, codebooks - first)
        return jnp.concatenate([semantic, acoustic], axis=-1)

    def decode(self, codes: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """codes [B, T, Q] -> [B, T, D] of `dtype`."""
        n = self.config.semantic
        return self.semantic.decode(codes[..., :n], dtype) + self.acoustic.decode(
            codes[..., n:], dtype
        )


def divide(embed_sum: jax.Array, usage: jax.Array) -> jax.Array:
    """Entries [..., d] float32 from their sums [..., d] and counts [...]."""
    count = jnp.maximum(usage.astype(jnp.float32), MIN_USAGE)
    return embed_sum.astype(jnp.float32) / count[..., None]


def nearest(x: jax.Array, entries: jax.Array) -> jax.Array:
    """Index of the Euclidean nearest entry; the first one of several equally near.

    Args:
        x: [..., d] float32.
        entries: [V, d] float32.

    Returns:
        [...] int32.
    """
    count = entries.shape[0]
    blocks, size = entry_blocks(math.prod(x.shape[:-1]), count)
    if blocks == 1:
        return jnp.argmin(_distances(x, entries), axis=-1).astype(jnp.int32)

    def search(
        best: tuple[jax.Array, jax.Array], start: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        found = _distances(x, jax.lax.dynamic_slice_in_dim(entries, start, size))  # [..., size]
        index = start + jnp.argmin(found, axis=-1).astype(jnp.int32)
        least = jnp.min(found, axis=-1)
        closer = least < best[0]
        return (jnp.where(closer, least, best[0]), jnp.where(closer, index, best[1])), None

    # The last block begins early enough to be full; entries seen twice change nothing.
    starts = jnp.minimum(size * jnp.arange(blocks), count - size)
    begin = jnp.full(x.shape[:-1], jnp.inf), jnp.zeros(x.shape[:-1], jnp.int32)
    return jax.lax.scan(search, begin, starts)[0][1]


def entry_blocks(vectors: int, entries: int) -> tuple[int, int]:
    """How many blocks of entries, and entries of each, keep a table within `TABLE_VALUES`.

    Blocks are of entries and not of vectors, whose rows may lie on several devices.
    """
    size = max(1, min(entries, TABLE_VALUES // max(1, vectors)))
    return -(-entries // size), size


def _distances(x: jax.Array, entries: jax.Array) -> jax.Array:
    """Squared distances [..., V] to all entries, but for |x|^2.

    That is the same for all entries; leaving it out also leaves out its rounding.
    """
    dot = jnp.einsum("...d,vd->...v", x, entries, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(jnp.square(entries), axis=-1) - 2 * dot
