"""From modules to pure functions: split a model once, then pass its parameters as an argument.

`nnx.jit` walks the module on every call, which costs tens of milliseconds a frame; a function of
arrays costs one.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

Params = dict[str, Any]


class _NoKey:
    """Replaces `nnx.Rngs` where only shapes are needed (`layers/param.py`)."""

    def params(self) -> None:
        """No key, so no value: tracing unused initializers would take a second per model."""


def shapes_of(build: Callable[..., nnx.Module], *args: Any) -> Any:
    """The module `build(*args, rngs=...)` with `jax.ShapeDtypeStruct` for parameters."""
    return build(*args, rngs=_NoKey())


@functools.lru_cache(maxsize=64)
def abstract(module: Callable[..., nnx.Module], config: Any) -> tuple[nnx.GraphDef, Params]:
    """Structure and parameter shapes of `module(config, rngs=...)`, without allocating memory.

    Returns:
        The graph definition (static) and a nested dict of `jax.ShapeDtypeStruct`.
    """
    graphdef, state = nnx.split(shapes_of(module, config))
    return graphdef, nnx.to_pure_dict(state)


def logical_axes(module: Callable[..., nnx.Module], config: Any) -> Params:
    """The logical axis names of every parameter, as a nested dict of tuples."""
    state = nnx.state(shapes_of(module, config))
    return nnx.to_pure_dict(
        jax.tree.map(
            lambda v: v.get_metadata()["logical_axes"],
            state,
            is_leaf=lambda v: isinstance(v, nnx.Param),
        )
    )


def initialize(module: Callable[..., nnx.Module], config: Any, seed: int) -> Params:
    """Random float32 parameters of `module(config, rngs=...)` as a nested dict of arrays."""
    build = jax.jit(lambda: nnx.state(module(config, rngs=nnx.Rngs(seed))))
    return nnx.to_pure_dict(build())


def bind(graphdef: nnx.GraphDef, params: Params) -> Any:
    """The module with these parameters; cheap inside a jitted function, where it is only traced."""
    return nnx.merge(graphdef, params)


def computation_dtype(params: Params) -> Any:
    """Type in which a model with these parameters computes: that of the first parameter.

    A parameter stored in another type (`layers/quantized_weights.py`) counts as its original type.
    """
    return jax.tree.leaves(params, is_leaf=lambda x: hasattr(x, "dtype"))[0].dtype


def matmul_precision(params: Params) -> Any:
    """A context in which products of float32 parameters are full float32 on every device.

    GPUs and TPUs otherwise round float32 operands to 10 or 8 bits; full float32 is needed where
    codes must agree with the official package. Other types keep the device's default.
    """
    if computation_dtype(params) == jnp.float32:
        return jax.default_matmul_precision("highest")
    return contextlib.nullcontext()


def cast(params: Params, dtype: jnp.dtype) -> Params:
    """All floating point parameters in `dtype`."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, params
    )
