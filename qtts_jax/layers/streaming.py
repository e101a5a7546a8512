"""The contract of every layer with memory.

    init_state(batch, dtype) -> state     every leaf has the batch as axis 0
    step(x, state) -> (y, state)          x [B, T, C] for any T that the layer's rate allows
    layer(x)                              is a step over the whole input from a fresh state

There is one code path, so streaming equals offline by construction, up to rounding.
Batch-first leaves make reset, hold and insertion of one row a `tree.map` over `where`.
"""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp

State = TypeVar("State")


@runtime_checkable
class Streaming(Protocol[State]):
    """A layer that can be fed in chunks of any size."""

    def init_state(self, batch: int, dtype: jnp.dtype) -> State:
        """The state before the first input."""
        ...

    def step(self, x: jax.Array, state: State) -> tuple[jax.Array, State]:
        """Consume x: the outputs that it completes, and the next state."""
        ...


def where_rows(rows: jax.Array, chosen: State, other: State) -> State:
    """Row-wise choice between two states of the same structure.

    Args:
        rows: [B] bool, True takes the row of `chosen`.
    """

    def pick(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(rows.reshape(rows.shape + (1,) * (a.ndim - 1)), a, b)

    picked: State = jax.tree.map(pick, chosen, other)
    return picked
