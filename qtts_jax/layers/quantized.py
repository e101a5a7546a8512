"""Weights stored in one byte each, with a factor for every output row.

Decoding reads every weight once a step and computes little with it, so half the bytes are up to
twice the speed; activations stay as they are. A quantised weight takes the place of an array in a
tree of parameters; the modules ask only `matrix`, `product` and `dense` of either.
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

Weights = Literal["int8", "fp8"]
STORED: Mapping[str, Any] = {"int8": jnp.int8, "fp8": jnp.float8_e4m3fn}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """values * scale, standing for a weight [*rows, *columns].

    Attributes:
        values: [*rows, *columns] int8 or float8.
        scale: [*rows] float32.
        dtype: of the weight it stands for, which is that of the computation.
    """

    values: jax.Array
    scale: jax.Array
    dtype: Any = dataclasses.field(metadata={"static": True})

    def __getitem__(self, at: Any) -> Quantized:
        """Some of the rows."""
        return Quantized(self.values[at], self.scale[at], self.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the weight."""
        return self.values.shape


Weight = jax.Array | Quantized


def quantize(weight: jax.Array, columns: int, kind: Weights) -> Quantized:
    """Nearest values of the row's own grid, whose end is the row's largest absolute value.

    Args:
        weight: [*rows, *columns].
        columns: how many of the last dimensions are columns.
        kind: "int8", or "fp8" (e4m3).
    """
    target = STORED[kind]
    over = tuple(range(weight.ndim - columns, weight.ndim))
    wide = weight.astype(jnp.float32)
    largest = jnp.max(jnp.abs(wide), axis=over)
    integer = jnp.issubdtype(target, jnp.integer)
    end = jnp.iinfo(target).max if integer else float(jnp.finfo(target).max)
    # A row of zeros has no scale of its own.
    scale = jnp.where(largest > 0, largest / end, 1.0)
    values = wide / jnp.expand_dims(scale, over)
    values = jnp.round(values) if integer else values
    return Quantized(values.astype(target), scale, weight.dtype)


def quantizer(
    module: Callable[..., nnx.Module], config: Any, kind: Weights
) -> Callable[[tuple[str, ...], jax.Array], Weight]:
    """A function (path, array) -> what is stored for the parameter at that path.

    Matrices and tables (declared by `param(columns=...)`) are quantised; norms, biases and
    convolutions stay.

    Raises:
        RequestError: no such kind.
    """
    if kind not in STORED:
        raise RequestError(f"weights are {' or '.join(map(repr, STORED))}, not {kind!r}.")
    state = nnx.state(shapes_of(module, config))
    columns = {
        tuple(str(k) for k in path): variable.get_metadata().get("columns")
        for path, variable in nnx.to_flat_state(state)
    }
    convert = jax.jit(quantize, static_argnums=(1, 2))

    def store(path: tuple[str, ...], array: jax.Array) -> Weight:
        n = columns[path]
        return array if n is None else convert(array, n, kind)

    return store


def quantize_params(
    module: Callable[..., nnx.Module], config: Any, params: Params, kind: Weights
) -> Params:
    """A tree of parameters of `module(config, rngs=...)`, quantised."""
    store = quantizer(module, config, kind)
    return jax.tree_util.tree_map_with_path(
        lambda path, x: store(tuple(str(key.key) for key in path), x), params
    )


def matrix(w: Weight, columns: int) -> Weight:
    """A weight as [rows, columns]."""
    if isinstance(w, Quantized):
        return Quantized(w.values.reshape(-1, columns), w.scale.reshape(-1), w.dtype)
    return w.reshape(-1, columns)


def dense(w: Weight) -> jax.Array:
    """The weight that is stood for, its rows being its leading dimensions."""
    if not isinstance(w, Quantized):
        return w
    scale = w.scale.reshape(w.scale.shape + (1,) * (w.values.ndim - w.scale.ndim))
    return (w.values.astype(jnp.float32) * scale).astype(w.dtype)


def product(x: jax.Array, w: Weight) -> jax.Array:
    """x [..., D] times w [N, D] -> [..., N] in the type of x, summed in float32 or wider."""
    if not isinstance(w, Quantized):
        return jnp.einsum("...d,nd->...n", x, w)
    # int8 and float8 values are exact in bfloat16; the scale is applied to the sums.
    y = jnp.einsum("...d,nd->...n", x, w.values.astype(x.dtype), preferred_element_type=jnp.float32)
    return (y * w.scale).astype(x.dtype)
