"""Position of a chunk within its signal, for streaming layers with look-ahead.

A layer that sees `delay` samples beyond its own can only finish a sample that many samples later.
So in a stream its output covers the input's positions shifted back by `delay`: the first `delay`
outputs lie before the signal and are undefined, and after its end `delay` more inputs of any value
flush the last outputs. Values outside the signal (zeros for a convolution, the edge sample for a
resampling filter) are filled in by position, which makes a stream equal to the full signal.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Span(NamedTuple):
    """Position of a chunk of signal in each row.

    Attributes:
        position: [B] int32, index of the chunk's first sample; negative before the signal begins.
        end: [B] int32, length of the whole signal; any bound beyond the chunk while unknown.
    """

    position: jax.Array
    end: jax.Array

    def delayed(self, samples: int | jax.Array) -> Span:
        """The same chunk after a layer of this delay."""
        return Span(self.position - samples, self.end)

    def upsampled(self, factor: int) -> Span:
        """The same chunk at `factor` times the rate."""
        return Span(self.position * factor, self.end * factor)

    def indices(self, time: int) -> jax.Array:
        """[B, T] positions of the next `time` samples."""
        return self.position[:, None] + jnp.arange(time, dtype=jnp.int32)

    def inside(self, time: int) -> jax.Array:
        """[B, T] bool, True for the samples of the signal itself."""
        index = self.indices(time)
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


def full_span(batch: int, time: int, lengths: jax.Array | None = None) -> Span:
    """Span of `time` samples that begin at the start of every row.

    Args:
        lengths: [B], real samples of each row; None for all.
    """
    end = jnp.full((batch,), time, jnp.int32) if lengths is None else lengths.astype(jnp.int32)
    return Span(jnp.zeros((batch,), jnp.int32), end)


def delay(x: jax.Array, state: jax.Array, axis: int = 1) -> tuple[jax.Array, jax.Array]:
    """A delay line: x [B, T, ...] and the newest inputs [B, n, ...] -> (oldest T, newest n).

    Args:
        axis: the axis of time in both.
    """
    if state.shape[axis] == 0:
        return x, state
    line = jnp.concatenate([state.astype(x.dtype), x], axis=axis)
    oldest, newest = jnp.split(line, [x.shape[axis]], axis=axis)
    return oldest, newest
