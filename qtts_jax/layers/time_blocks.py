"""A step over a long input as a scan of steps over blocks of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

Layer = TypeVar("Layer", bound=nnx.Module)
State = TypeVar("State")


def step_in_blocks(
    step: Callable[[Layer, jax.Array, State, jax.Array | None], tuple[jax.Array, State]],
    layer: Layer,
    x: jax.Array,
    state: State,
    lengths: jax.Array | None,
    blocks: int,
) -> tuple[jax.Array, State]:
    """`step` over equal blocks of time, one after the other, in the memory of one block.

    Where there is a gradient the step is over all of time: XLA:CPU takes 30 times as long for the
    gradient of convolutions in a loop.

    Args:
        step: (layer, x, state, lengths) -> (y, state) of a streaming layer.
        x: [B, T, C].
        lengths: [B] real inputs per row (see `Conv.step`); None for all.
        blocks: how many; T is a multiple of them, and a block one of the layer's smallest input.
    """
    if blocks == 1:
        return step(layer, x, state, lengths)
    size = x.shape[1] // blocks
    graph, params = nnx.split(layer)

    def whole(params: Any, x: jax.Array, state: State, lengths: Any) -> tuple[jax.Array, State]:
        return step(nnx.merge(graph, params), x, state, lengths)

    @jax.custom_jvp
    def run(params: Any, x: jax.Array, state: State, lengths: Any) -> tuple[jax.Array, State]:
        def one(state: State, block: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
            x, start = block
            left = None if lengths is None else jnp.clip(lengths - start, 0, size)
            y, state = whole(params, x, state, left)
            return state, y

        starts = size * jnp.arange(blocks, dtype=jnp.int32)
        xs = rearrange(x, "b (n t) c -> n b t c", n=blocks)
        state, ys = jax.lax.scan(one, state, (xs, starts))  # ys [n, B, t', C']
        return rearrange(ys, "n b t c -> b (n t) c"), state

    run.defjvp(lambda inputs, changes: jax.jvp(whole, inputs, changes))
    y: tuple[jax.Array, State] = run(params, x, state, lengths)
    return y
