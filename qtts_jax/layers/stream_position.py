"""Where a piece of a signal lies, for layers that look ahead.

A layer that sees `delay` samples beyond its own can only finish a sample that many samples later.
So in a stream its output covers the input's positions shifted back by `delay`: the first `delay`
outputs lie before the signal and mean nothing, and after its end as many inputs of any value push
the last outputs out. What lies outside of a signal (zeros for a convolution, the edge sample for
a resampling filter) is put in by position, which makes a stream equal to the whole signal.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Span(NamedTuple):
    """Position of a piece of signal in each row.

    Attributes:
        position: [B] int32, index of the piece's first sample; negative before the signal begins.
        end: [B] int32, length of the whole signal; any bound beyond the piece while unknown.
    """

    position: jax.Array
    end: jax.Array

    def delayed(self, samples: int) -> Span:
        """The same piece after a layer of this delay."""
        return Span(self.position - samples, self.end)

    def upsampled(self, factor: int) -> Span:
        """The same piece at `factor` times the rate."""
        return Span(self.position * factor, self.end * factor)

    def indices(self, steps: int) -> jax.Array:
        """[B, T] positions of `steps` samples."""
        return self.position[:, None] + jnp.arange(steps, dtype=jnp.int32)

    def inside(self, steps: int) -> jax.Array:
        """[B, T] bool, True for the samples of the signal itself."""
        index = self.indices(steps)
        return (index >= 0) & (index < self.end[:, None])

    def masked(self, x: jax.Array, axis: int = 1) -> jax.Array:
        """x with zeros outside of the signal, whatever was there (NaN included).

        Args:
            x: [B, ..., T, ...] with time at `axis`.
        """
        inside = self.inside(x.shape[axis])
        shape = [inside.shape[0] if i == 0 else 1 for i in range(x.ndim)]
        shape[axis] = inside.shape[1]
        return jnp.where(inside.reshape(shape), x, 0)


def whole(batch: int, steps: int, lengths: jax.Array | None = None) -> Span:
    """The span of rows given from their start; `lengths` [B] samples are real, or all."""
    end = jnp.full((batch,), steps, jnp.int32) if lengths is None else lengths.astype(jnp.int32)
    return Span(jnp.zeros((batch,), jnp.int32), end)


def delay(x: jax.Array, state: jax.Array, axis: int = 1) -> tuple[jax.Array, jax.Array]:
    """A delay line: x [B, T, ...] and the newest inputs [B, n, ...] -> (the T oldest, the rest).

    Args:
        axis: the axis of time in both.
    """
    if state.shape[axis] == 0:
        return x, state
    line = jnp.concatenate([state.astype(x.dtype), x], axis=axis)
    oldest, newest = jnp.split(line, [x.shape[axis]], axis=axis)
    return oldest, newest
