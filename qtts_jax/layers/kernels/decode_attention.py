"""Attention of one new position per row over a cache, with QK norm, RoPE and the cache write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from qtts_jax.layers.attention import attend, write
from qtts_jax.layers.dispatch import Backend
from qtts_jax.layers.kernels.common import F32, rounded
from qtts_jax.layers.norm import rms_norm
from qtts_jax.layers.rope import RopeAngles, apply_rope

# Cache rows per step, for few rows of a batch and for many.
TILE, BATCH_TILE, WARPS = 64, 32, 4
# A cache of a single tile, such as the code predictor's: one warp needs no barriers.
SMALL_SLOTS, SMALL_WARPS = 32, 1
# Up to how many slots one program attends alone.
SINGLE_PROGRAM_SLOTS = 256
# Programs that fill the processors of a GPU (132 on an H100); a power of two. Fewer rows times
# heads than this, and a long cache is split over programs.
PROGRAMS = 128
# Fewest rows of a product on the matrix units.
DOT = 16


def plain_attention(
    qkv: jax.Array,
    q_scale: jax.Array | None,
    k_scale: jax.Array | None,
    rope: RopeAngles,
    keys: jax.Array,
    values: jax.Array,
    position: jax.Array,
    eps: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Definition of `attention`."""
    qkv = qkv[:, None]
    q = apply_rope(rms_norm(qkv[..., :-2, :], q_scale, eps), rope)
    k = apply_rope(rms_norm(qkv[..., -2, :], k_scale, eps), rope)
    keys, values = write(keys, k, position), write(values, qkv[..., -1, :], position)
    mask = (jnp.arange(keys.shape[1]) <= position[:, None])[:, None]
    return attend(q, keys, values, mask)[:, 0], keys, values


@partial(jax.jit, static_argnames=("eps", "backend"))
def attention(
    qkv: jax.Array,
    q_scale: jax.Array | None,
    k_scale: jax.Array | None,
    rope: RopeAngles,
    keys: jax.Array,
    values: jax.Array,
    position: jax.Array,
    eps: float,
    *,
    backend: Backend,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Attention of one new position per row, from merged projections, which also writes the cache.

    The new key and value are used from registers, so that no program reads what another writes.
    Only slots below a row's position are read. A long cache of few rows is split over programs,
    whose partial softmax sums a second kernel combines (flash decoding); in a larger batch there
    are programs enough, and the sums over slots and channels run on the matrix units.

    Args:
        qkv: [B, K, G+2, h]; per head its G queries, its key, its value. h is a power of two.
        q_scale, k_scale: [h], or both None without query and key normalization.
        rope: cos and sin [B, 1, h/2] float32 of each row's position.
        keys, values: [B, S, K, h]; updated in place where the caller gives them up.
        position: [B] int32, filled slots. As in `attention.write`, a full cache has its last
            slot overwritten.

    Returns:
        [B, K, G, h] in the type of values, keys, values.
    """
    if backend == "plain":
        return plain_attention(qkv, q_scale, k_scale, rope, keys, values, position, eps)
    rows, slots, heads, width = keys.shape
    groups = qkv.shape[2] - 2
    small, many = slots <= SMALL_SLOTS, rows * heads >= PROGRAMS
    single = slots <= SINGLE_PROGRAM_SLOTS or many
    splits = 1 if single else pl.next_power_of_2(PROGRAMS // (rows * heads))
    # A short cache of few rows is bound by latency, so each query has its own program; otherwise
    # memory is the bound, so the queries of a head share what is read.
    queries = 1 if single and not many else groups
    tile = pl.next_power_of_2(slots) if small else TILE
    kernel: Callable[..., None] = partial(
        _attention_kernel, tile=tile, splits=splits, queries=queries
    )
    if many and not small and width >= 2 * DOT:
        kernel = partial(_batch_kernel, tile=BATCH_TILE)
    params = plgpu.CompilerParams(num_warps=SMALL_WARPS if small else WARPS)
    cache = [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in (keys, values)]
    if splits == 1:
        result = [jax.ShapeDtypeStruct((rows, heads, groups, width), values.dtype)]
    else:
        sums = jax.ShapeDtypeStruct((rows, heads, groups, splits), F32)
        result = [sums, sums, jax.ShapeDtypeStruct((rows, heads, groups, splits, width), F32)]
    new_keys, new_values, *parts = pl.pallas_call(
        partial(kernel, eps=eps),
        grid=(rows * heads, groups // queries, splits),
        out_shape=[*cache, *result],
        input_output_aliases={0: 0, 1: 1},
        compiler_params=params,
        interpret=backend == "interpret",
        name="attention",
    )(keys, values, qkv, q_scale, k_scale, *rope, position)
    if splits == 1:
        return parts[0], new_keys, new_values
    out = pl.pallas_call(
        _combine_kernel,
        grid=(rows * heads, groups),
        out_shape=jax.ShapeDtypeStruct((rows, heads, groups, width), values.dtype),
        compiler_params=params,
        interpret=backend == "interpret",
        name="attention_combine",
    )(*parts)
    return out, new_keys, new_values


class _New(NamedTuple):
    """Queries, key and value of the new position of a program's row and head, in registers.

    Heads are two halves throughout, because rotation pairs element i with i + h/2.

    Attributes:
        slot: where the new key and value belong.
        queries: the rotated halves of each query, float32.
        key: the rotated halves of the new key, float32.
        value: the new value, float32.
    """

    slot: jax.Array
    queries: list[tuple[jax.Array, jax.Array]]
    key: tuple[jax.Array, jax.Array]
    value: jax.Array

    def score(self, query: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Score of the new key for one query."""
        product = query[0] * self.key[0] + query[1] * self.key[1]
        return jnp.sum(product) * float(self.value.shape[0] ** -0.5)


def _new_position(
    row: jax.Array,
    head: jax.Array,
    queries: Iterable[jax.Array | int],
    keys: jax.Ref,
    values: jax.Ref,
    qkv: jax.Ref,
    q_scale: jax.Ref | None,
    k_scale: jax.Ref | None,
    cos: jax.Ref,
    sin: jax.Ref,
    position: jax.Ref,
    eps: float,
) -> _New:
    _, slots, _, width = keys.shape
    groups, half = qkv.shape[2] - 2, width // 2
    low, high = pl.ds(0, half), pl.ds(half, half)
    c, s = cos[row, 0, low], sin[row, 0, low]

    def rotated(index: jax.Array | int, scale: jax.Ref | None) -> tuple[jax.Array, jax.Array]:
        a, b = (qkv[row, head, index, part].astype(F32) for part in (low, high))
        if scale is not None:
            factor = jax.lax.rsqrt(jnp.sum(a * a + b * b) / width + eps)
            a = rounded(rounded(a * factor, qkv.dtype) * scale[low].astype(F32), qkv.dtype)
            b = rounded(rounded(b * factor, qkv.dtype) * scale[high].astype(F32), qkv.dtype)
        return rounded(a * c - b * s, qkv.dtype), rounded(b * c + a * s, qkv.dtype)

    key_a, key_b = rotated(groups, k_scale)
    value = qkv[row, head, groups + 1, pl.ds(0, width)].astype(F32)
    return _New(
        jnp.minimum(position[row], slots - 1),
        [rotated(i, q_scale) for i in queries],
        (rounded(key_a, keys.dtype), rounded(key_b, keys.dtype)),
        rounded(value, values.dtype),
    )


def _write(
    new: _New, row: jax.Array, head: jax.Array, new_keys: jax.Ref, new_values: jax.Ref
) -> None:
    """Put the new position into the cache.

    Must come last in a kernel: loads cannot move above stores that might touch the same memory.
    """
    width = new.value.shape[0]
    half = width // 2
    for start, part in zip((0, half), new.key, strict=True):
        new_keys[row, new.slot, head, pl.ds(start, half)] = part.astype(new_keys.dtype)
    new_values[row, new.slot, head, pl.ds(0, width)] = new.value.astype(new_values.dtype)


def _attention_kernel(
    keys: jax.Ref,
    values: jax.Ref,
    qkv: jax.Ref,
    q_scale: jax.Ref | None,
    k_scale: jax.Ref | None,
    cos: jax.Ref,
    sin: jax.Ref,
    position: jax.Ref,
    new_keys: jax.Ref,
    new_values: jax.Ref,
    *out: jax.Ref,
    eps: float,
    tile: int,
    splits: int,
    queries: int,
) -> None:
    _, slots, heads, width = keys.shape
    row, head = pl.program_id(0) // heads, pl.program_id(0) % heads
    first_query, split = pl.program_id(1) * queries, pl.program_id(2)
    low, high = pl.ds(0, width // 2), pl.ds(width // 2, width // 2)
    mine = [first_query + i for i in range(queries)]
    new = _new_position(
        row, head, mine, keys, values, qkv, q_scale, k_scale, cos, sin, position, eps
    )

    def look(start: jax.Array | int, sums: Sequence[Any]) -> list[Any]:
        """Add the slots from `start` to the running (max, sum, weighted values) of each query."""
        here = pl.ds(start, tile)
        valid = start + jnp.arange(tile) < new.slot
        # Empty slots hold anything: they must not reach the sums even with weight 0.
        load = partial(plgpu.load, mask=valid[:, None], other=0)
        a, b = (load(keys.at[row, here, head, part]).astype(F32) for part in (low, high))
        v = load(values.at[row, here, head, pl.ds(0, width)]).astype(F32)
        after = []
        for (qa, qb), (top, total, mixed) in zip(new.queries, sums, strict=True):
            score = jnp.sum(a * qa[None, :] + b * qb[None, :], axis=1) * width**-0.5
            score = jnp.where(valid, score, -jnp.inf)
            best = jnp.maximum(top, jnp.max(score))
            weight, keep = jnp.exp(score - best), jnp.exp(top - best)
            mixed = mixed * keep + jnp.sum(weight[:, None] * v, axis=0)
            after.append((best, total * keep + jnp.sum(weight), mixed))
        return after

    # The first program of a head counts the new position.
    first = split == 0
    sums: list[Any] = [
        (
            jnp.where(first, new.score(query), -jnp.inf),
            (1 - jnp.minimum(split, 1)).astype(F32),
            jnp.where(jnp.broadcast_to(first, new.value.shape), new.value, 0.0),
        )
        for query in new.queries
    ]
    if slots <= tile and splits == 1:
        # A start that is not static, because a static slice may not pass the end, even masked.
        sums = look(split, sums)
    else:
        # Tiles are dealt to the programs in turn, so that all are busy however full the cache is.
        steps = (pl.cdiv(new.slot, tile) - split + splits - 1) // splits
        sums = jax.lax.fori_loop(
            0, steps, lambda i, carry: look((split + i * splits) * tile, carry), sums
        )

    @pl.when(first & (first_query == 0))
    def write_new() -> None:
        _write(new, row, head, new_keys, new_values)

    for g, (top, total, mixed) in zip(mine, sums, strict=True):
        if splits == 1:
            out[0][row, head, g, pl.ds(0, width)] = (mixed / total).astype(out[0].dtype)
        else:
            out[0][row, head, g, split] = top
            out[1][row, head, g, split] = total
            out[2][row, head, g, split, pl.ds(0, width)] = mixed


def _batch_kernel(
    keys: jax.Ref,
    values: jax.Ref,
    qkv: jax.Ref,
    q_scale: jax.Ref | None,
    k_scale: jax.Ref | None,
    cos: jax.Ref,
    sin: jax.Ref,
    position: jax.Ref,
    new_keys: jax.Ref,
    new_values: jax.Ref,
    out: jax.Ref,
    *,
    eps: float,
    tile: int,
) -> None:
    """One program a row and head; its queries are rows of a matrix, filled up with zeros."""
    _, _, heads, width = keys.shape
    row, head = pl.program_id(0) // heads, pl.program_id(0) % heads
    low, high = pl.ds(0, width // 2), pl.ds(width // 2, width // 2)
    groups = qkv.shape[2] - 2
    new = _new_position(
        row, head, range(groups), keys, values, qkv, q_scale, k_scale, cos, sin, position, eps
    )
    size = max(pl.next_power_of_2(groups), DOT)
    index = jnp.arange(size)

    def stack(rows: Sequence[jax.Array]) -> jax.Array:
        """Rows [n] or scalars as [size, n] or [size]."""
        total = jnp.zeros((size, *rows[0].shape), F32)
        for i, r in enumerate(rows):
            total += jnp.where((index == i).reshape(size, *(1,) * r.ndim), r[None], 0.0)
        return total

    qa, qb = (stack(half).astype(keys.dtype) for half in zip(*new.queries, strict=True))
    dot = partial(plgpu.dot, allow_tf32=False)

    def look(i: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        top, total, mixed = sums
        here = pl.ds(i * tile, tile)
        valid = i * tile + jnp.arange(tile) < new.slot
        load = partial(plgpu.load, mask=valid[:, None], other=0)
        a, b = (load(keys.at[row, here, head, part]) for part in (low, high))
        v = load(values.at[row, here, head, pl.ds(0, width)])
        score = (dot(qa, a, trans_b=True) + dot(qb, b, trans_b=True)) * width**-0.5
        score = jnp.where(valid[None, :], score, -jnp.inf)
        best = jnp.maximum(top, jnp.max(score, axis=1))
        weight, keep = jnp.exp(score - best[:, None]), jnp.exp(top - best)
        mixed = mixed * keep[:, None] + dot(weight.astype(v.dtype), v)
        return best, total * keep + jnp.sum(weight, axis=1), mixed

    value = jnp.broadcast_to(new.value[None, :], (size, width))
    start = stack([new.score(q) for q in new.queries]), jnp.ones((size,), F32), value
    _, total, mixed = jax.lax.fori_loop(0, pl.cdiv(new.slot, tile), look, start)
    _write(new, row, head, new_keys, new_values)
    # A start that is not static, because a static slice may not pass the end, even masked.
    at = out.at[row, head, pl.ds(row * 0, size), pl.ds(0, width)]
    result = (mixed / total[:, None]).astype(out.dtype)
    plgpu.store(at, result, mask=jnp.broadcast_to((index < groups)[:, None], (size, width)))


def _combine_kernel(
    tops: jax.Ref,
    totals: jax.Ref,
    mixed: jax.Ref,
    out: jax.Ref,
) -> None:
    heads, (splits, width) = mixed.shape[1], mixed.shape[3:]
    at = pl.program_id(0) // heads, pl.program_id(0) % heads, pl.program_id(1)
    all_splits, all_width = pl.ds(0, splits), pl.ds(0, width)
    top = tops[(*at, all_splits)]
    weight = jnp.exp(top - jnp.max(top))
    total = jnp.sum(weight * totals[(*at, all_splits)])
    y = jnp.sum(weight[:, None] * mixed[(*at, all_splits, all_width)], axis=0) / total
    out[(*at, all_width)] = y.astype(out.dtype)
