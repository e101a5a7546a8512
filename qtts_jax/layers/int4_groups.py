"""Matrices of four bits a value: two values a byte, a scale for every group of input columns.

Rounding to 16 levels needs a finer grid than one a row, so every `GROUP` values of a row share a
scale. Bytes are explicit, because `jnp.int4` arrays take a byte a value outside of programs. A byte
holds the values of columns j and j + group / 2 of a group, so that its two halves multiply two
slices of the input, groups stay whole where a mesh splits columns, and no product has to put
columns side by side again.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from qtts_jax.layers import dispatch

# Columns of a group. The scale, 16 bits, adds 1/8 to the bytes of the values.
GROUP = 32
# A smaller group would take as much memory as a byte a value with a scale a row.
LEAST = 8
# Grids tried for a group: the value of largest magnitude is at these multiples of its end.
_ENDS = (1.0, 0.95, 0.9, 0.85)


def group_of(width: int) -> int | None:
    """Columns of a group in rows of this width; None where the width is not divided by enough."""
    group = math.gcd(width, GROUP)
    return group if group >= LEAST else None


def quantize(wide: jax.Array, group: int) -> tuple[jax.Array, jax.Array]:
    """Round to grids of 16 levels.

    A grid has -8 to 7 steps, so the sign of a scale is that with which the value of largest
    magnitude is negative. Of a few scales the one of least squared error is taken: large values
    are clipped where the others gain by it.

    Args:
        wide: [..., D] float32.
        group: columns of a group, an even divisor of D.

    Returns:
        [..., D / 2] uint8 and [..., D / group] bfloat16.
    """
    x = wide.reshape(*wide.shape[:-1], -1, group)
    most, least = jnp.max(x, axis=-1), jnp.min(x, axis=-1)
    peak = jnp.where(most > -least, most, least)  # [..., D / group]

    def steps(scale: jax.Array) -> jax.Array:
        return jnp.clip(jnp.round(x / scale.astype(jnp.float32)[..., None]), -8, 7)

    def error(scale: jax.Array) -> jax.Array:
        return jnp.sum((steps(scale) * scale.astype(jnp.float32)[..., None] - x) ** 2, axis=-1)

    # A group of zeros would divide by 0.
    scales = [jnp.where(peak == 0, 1.0, peak * (end / -8)).astype(jnp.bfloat16) for end in _ENDS]
    best, least_error = scales[0], error(scales[0])
    for scale in scales[1:]:
        found = error(scale)
        best = jnp.where(found < least_error, scale, best)
        least_error = jnp.minimum(found, least_error)
    nibbles = (steps(best) + 8).astype(jnp.uint8)
    low, high = jnp.split(nibbles, 2, axis=-1)
    values = low | high << 4
    return values.reshape(*wide.shape[:-1], -1), best


def dense(values: jax.Array, scale: jax.Array) -> jax.Array:
    """The weight [..., D] in float32.

    Args:
        values: [..., D / 2] uint8.
        scale: [..., D / group].
    """
    x = jnp.concatenate(_halves(values, scale), axis=-1)  # [..., D / group, group]
    x = x * scale.astype(jnp.float32)[..., None]
    return x.reshape(*values.shape[:-1], -1)


def product(x: jax.Array, values: jax.Array, scale: jax.Array) -> jax.Array:
    """x [..., D] times the weight [N, D] -> [..., N] in the type of x, summed in float32.

    On a GPU one row is a sum over the bytes as they are read, which XLA makes one kernel, so that
    the matrix never stands in memory in a wider type. Elsewhere, and for more rows, halves of it
    do, in the type of x: one at a time where XLA schedules for memory, as on GPUs; several on CPUs,
    where it schedules for concurrency.
    """
    # Without the barrier XLA may move the conversion of a constant matrix out of the loop over
    # frames, and then all matrices stand in memory in the wide type.
    x, values, scale = jax.lax.optimization_barrier((x, values, scale))
    rows, group = x.reshape(-1, x.shape[-1]), x.shape[-1] // scale.shape[-1]
    parts = rows.reshape(len(rows), -1, 2, group // 2)  # [R, D / group, 2, group / 2]
    low, high = _halves(values, scale)
    factor = scale.astype(jnp.float32)[..., None]
    if len(rows) == 1 and dispatch.products_as_sums():
        wide = parts[0].astype(jnp.float32)
        y = jnp.sum((low * wide[:, 0] + high * wide[:, 1]) * factor, axis=(-2, -1))[None]
    else:

        def times(half: jax.Array, part: jax.Array) -> jax.Array:
            weight = (half * factor).astype(x.dtype).reshape(len(values), -1)  # [N, D / 2]
            part = part.reshape(len(rows), -1)
            return jnp.einsum("rd,nd->rn", part, weight, preferred_element_type=jnp.float32)

        y = times(low, parts[:, :, 0]) + times(high, parts[:, :, 1])
    return y.astype(x.dtype).reshape(*x.shape[:-1], -1)


def _halves(values: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Steps of the grid [..., D / group, group / 2] of the low and of the high half of bytes."""
    packed = values.reshape(*scale.shape, -1)
    low, high = packed & 15, packed >> 4
    return low.astype(jnp.float32) - 8, high.astype(jnp.float32) - 8
