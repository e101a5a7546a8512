"""Weights stored in fewer bytes than they are computed with.

Decoding reads every weight once per step and computes little with it, so half the bytes give up to
twice the speed; activations keep their type. A weight is stored in one byte, with a scale for every
output row; in four bits, with a scale for every group of columns (`int4_groups.py`); or, in a
float32 model, in bfloat16 where that is exact. A `Quantized` takes the place of an array in a
parameter tree; modules use both through `matrix`, `product` and `dense`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.errors import RequestError
from qtts_jax.functional import Params, shapes_of
from qtts_jax.layers import dispatch, int4_groups, storage_policy

Weights = Literal["int8", "fp8", "int4"]
# Types of the values; those of int4 are two a byte.
STORED: Mapping[str, Any] = {"int8": jnp.int8, "fp8": jnp.float8_e4m3fn, "int4": jnp.uint8}
# What "int4" stores in four bits, most of the bytes; the rest is in int8. Tables and heads of codes
# of the code predictor lose little by it. Its layers would lose much: they run once a codebook, and
# each time read what came of their error (`experiments/results/speed.md`).
FOUR_BITS = (
    ("talker", "transformer", "layers"),
    ("code_predictor", "embeddings"),
    ("code_predictor", "heads"),
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A weight [*rows, *columns] as values * scale.

    Attributes:
        values: [*rows, *columns] int8, float8 or bfloat16; uint8 with half the last dimension, two
            values a byte.
        scale: [*rows] float32; of two values a byte bfloat16 with the dimensions of the weight, the
            last divided by a group; None when the values are the weight itself.
        dtype: type of the original weight, in which the model computes.
    """

    values: jax.Array
    scale: jax.Array | None
    dtype: Any = dataclasses.field(metadata={"static": True})

    def __getitem__(self, at: Any) -> Quantized:
        """Select rows."""
        scale = None if self.scale is None else self.scale[at]
        return Quantized(self.values[at], scale, self.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        *lead, last = self.values.shape
        return (*lead, 2 * last if self.packed else last)

    @property
    def packed(self) -> bool:
        """Whether a byte has two values (int4)."""
        return bool(self.values.dtype == STORED["int4"])


Weight = jax.Array | Quantized


def quantize(weight: jax.Array, columns: int, kind: Weights) -> Quantized:
    """Round to a grid per row, whose end is the largest absolute value of the row.

    Args:
        weight: [*rows, *columns].
        columns: how many of the last dimensions are columns.
        kind: "int8", "fp8" (e4m3), or "int4": a grid for every group of columns; int8 where no
            group divides the last dimension.
    """
    if kind == "int4":
        group = int4_groups.group_of(weight.shape[-1])
        if group is not None:
            values, scale = int4_groups.quantize(weight.astype(jnp.float32), group)
            return Quantized(values, scale, weight.dtype)
        kind = "int8"
    target = STORED[kind]
    over = tuple(range(weight.ndim - columns, weight.ndim))
    wide = weight.astype(jnp.float32)
    largest = jnp.max(jnp.abs(wide), axis=over)
    integer = jnp.issubdtype(target, jnp.integer)
    end = jnp.iinfo(target).max if integer else float(jnp.finfo(target).max)
    # A row of zeros would divide by 0.
    scale = jnp.where(largest > 0, largest / end, 1.0)
    values = wide / jnp.expand_dims(scale, over)
    values = jnp.round(values) if integer else values
    return Quantized(values.astype(target), scale, weight.dtype)


def quantizer(
    module: Callable[..., nnx.Module], config: Any, kind: Weights
) -> Callable[[tuple[str, ...], jax.Array], Weight]:
    """A function (path, array) -> stored weight of the parameter at that path.

    Matrices and tables (declared by `param(columns=...)`) are quantised; norms, biases and
    convolutions stay.

    Raises:
        RequestError: no such kind.
    """
    if kind not in STORED:
        *others, last = map(repr, STORED)
        raise RequestError(f"weights are {', '.join(others)} or {last}, not {kind!r}.")
    columns = _columns(module, config)
    convert = jax.jit(quantize, static_argnums=(1, 2))

    def store(path: tuple[str, ...], array: jax.Array) -> Weight:
        n = columns[path]
        coarse = any(path[: len(start)] == start for start in FOUR_BITS)
        here = "int8" if kind == "int4" and not coarse else kind
        return array if n is None else convert(array, n, here)

    return store


def halver(
    module: Callable[..., nnx.Module], config: Any
) -> Callable[[tuple[str, ...], jax.Array], Weight]:
    """As `quantizer`, exactly: float32 matrices and tables of bfloat16 values become bfloat16.

    Released weights are bfloat16, so a model that computes in float32 reads half the bytes and
    gives the same results up to the order of sums. Weights with more digits stay as they are.
    """
    columns = _columns(module, config)

    @jax.jit
    def halved(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        # `reduce_precision`, because XLA may remove a conversion to bfloat16 and back.
        return x.astype(jnp.bfloat16), jnp.all(jax.lax.reduce_precision(x, 8, 7) == x)

    def store(path: tuple[str, ...], array: jax.Array) -> Weight:
        if columns[path] is None or array.dtype != jnp.float32:
            return array
        half, same = halved(array)
        return Quantized(half, None, array.dtype) if same else array

    return store


def storage(
    module: Callable[..., nnx.Module], config: Any, dtype: Any, weights: Weights | None
) -> Callable[[tuple[str, ...], jax.Array], Weight] | None:
    """The conversion a loader applies to each parameter of type `dtype`; None for none.

    Args:
        weights: storage chosen by the user; None for what is fast and exact on this device.

    Raises:
        RequestError: no such kind of weights.
    """
    if weights is not None:
        return quantizer(module, config, weights)
    if jnp.dtype(dtype) == jnp.float32 and storage_policy.exact_half_weights():
        return halver(module, config)
    return None


def _columns(module: Callable[..., nnx.Module], config: Any) -> dict[tuple[str, ...], int | None]:
    """How many columns each parameter declares; None for those that are no matrix or table."""
    state = nnx.state(shapes_of(module, config))
    return {
        tuple(str(k) for k in path): variable.get_metadata().get("columns")
        for path, variable in nnx.to_flat_state(state)
    }


def quantize_params(
    module: Callable[..., nnx.Module], config: Any, params: Params, kind: Weights
) -> Params:
    """A tree of parameters of `module(config, rngs=...)`, quantised."""
    store = quantizer(module, config, kind)
    quantised: Params = jax.tree_util.tree_map_with_path(
        lambda path, x: store(tuple(str(key.key) for key in path), dense(x)),
        params,
        is_leaf=lambda x: isinstance(x, Quantized),
    )
    return quantised


def matrix(w: Weight, columns: int) -> Weight:
    """A weight as [rows, columns]."""
    if isinstance(w, Quantized):
        if w.packed:
            assert w.scale is not None
            groups = columns // (w.shape[-1] // w.scale.shape[-1])
            halves = w.values.reshape(-1, columns // 2)
            return Quantized(halves, w.scale.reshape(-1, groups), w.dtype)
        scale = None if w.scale is None else w.scale.reshape(-1)
        return Quantized(w.values.reshape(-1, columns), scale, w.dtype)
    return w.reshape(-1, columns)


def dense(w: Weight) -> jax.Array:
    """The weight as an array in its original type."""
    if not isinstance(w, Quantized):
        return w
    if w.scale is None:
        return w.values.astype(w.dtype)
    if w.packed:
        return int4_groups.dense(w.values, w.scale).astype(w.dtype)
    scale = w.scale.reshape(w.scale.shape + (1,) * (w.values.ndim - w.scale.ndim))
    return (w.values.astype(jnp.float32) * scale).astype(w.dtype)


def product(x: jax.Array, w: Weight) -> jax.Array:
    """x [..., D] times w [N, D] -> [..., N] in the type of x, summed in float32 or wider."""
    if not isinstance(w, Quantized):
        return jnp.einsum("...d,nd->...n", x, w)
    if w.scale is None:
        if x.dtype == jnp.float32 and dispatch.split_products():
            return split_product(x, w.values)
        return jnp.einsum("...d,nd->...n", x, w.values.astype(x.dtype))
    if w.packed:
        return int4_groups.product(x, w.values, w.scale)
    # int8 and float8 values are exact in bfloat16; the scale is applied to the sums.
    y = jnp.einsum("...d,nd->...n", x, w.values.astype(x.dtype), preferred_element_type=jnp.float32)
    return (y * w.scale).astype(x.dtype)


def split_product(x: jax.Array, w: jax.Array) -> jax.Array:
    """A float32 product with bfloat16 weights by products of bfloat16 numbers, without loss.

    A float32 number has 24 bits, three times those of bfloat16, so x is a sum of three bfloat16
    numbers. Their products with a weight are exact in float32: the result differs from that of
    float32 weights in the order of the sums only. (Values within 2^16 of the smallest normal
    float32 lose their last bits.)

    Args:
        x: [..., D] float32.
        w: [N, D] bfloat16.

    Returns:
        [..., N] float32.
    """
    rows = x.reshape(-1, x.shape[-1])  # [R, D]
    # `reduce_precision`, because XLA may remove a conversion to bfloat16 and back.
    high = jax.lax.reduce_precision(rows, 8, 7)
    low = rows - high
    middle = jax.lax.reduce_precision(low, 8, 7)
    parts = jnp.concatenate([low - middle, middle, high]).astype(jnp.bfloat16)  # [3 R, D]
    # With the weight on the left XLA streams it in the order of memory.
    y = jnp.einsum("nd,kd->nk", w, parts, precision="default", preferred_element_type=jnp.float32)
    y = jnp.sum(y.reshape(-1, 3, len(rows)), axis=1).T
    return y.reshape(*x.shape[:-1], -1)
