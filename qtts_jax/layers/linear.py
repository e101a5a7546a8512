"""Linear maps and embedding tables."""

from __future__ import annotations

import math

import jax
from flax import nnx

from qtts_jax.layers.embedding_lookup import lookup
from qtts_jax.layers.param import Initializer, constant, fan_in, normal, param
from qtts_jax.layers.quantized_weights import dense, matrix, product

Axes = tuple[str | None, ...]


class Linear(nnx.Module):
    """y = W x + b over the trailing dimensions of x.

    The kernel is stored [*out, *in], output first: decoding is a matrix-vector product, which then
    reads memory in rows. Several output dimensions merge projections of one input, such as query,
    key and value.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        in_axes: Axes,
        out_axes: Axes,
        *,
        bias: bool = False,
        init: Initializer | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.in_shape, self.out_shape = in_shape, out_shape
        init = init or fan_in(math.prod(in_shape))
        shape, axes = out_shape + in_shape, out_axes + in_axes
        self.kernel = param(rngs, shape, axes, init, columns=len(in_shape))
        self.bias = param(rngs, out_shape, out_axes, constant(0.0)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., *in] -> [..., *out]."""
        lead = x.shape[: x.ndim - len(self.in_shape)]
        width = math.prod(self.in_shape)
        y = product(x.reshape(*lead, width), matrix(self.kernel[...], width))
        y = y.reshape(*lead, *self.out_shape)
        return y if self.bias is None else y + self.bias[...]


class Embedding(nnx.Module):
    """A table [V, D] of rows.

    Args:
        axis: logical name of the vocabulary.
    """

    def __init__(
        self, vocab: int, width: int, *, std: float, axis: str = "vocab", rngs: nnx.Rngs
    ) -> None:
        self.table = param(rngs, (vocab, width), (axis, "embed"), normal(std), columns=1)

    def __call__(self, ids: jax.Array) -> jax.Array:
        """ids [...] int -> [..., D]."""
        return dense(lookup(self.table[...], ids))
