"""Decoding one token of one row with few device programs: Pallas (Triton) kernels for NVIDIA GPUs.

A decode step at batch 1 reads every weight once and computes next to nothing, so a layer is bound
by the number of kernels and by how well each streams its weights. Here a layer is five kernels
(six over a long cache) instead of the dozen or more that XLA makes of the plain modules.

Beside every kernel stands the plain function `plain_*` that defines it; the two differ in the
order of float32 sums, and attention weights stay float32 here. Activations are bfloat16 or
float32, sums are always float32, and results are rounded where the plain modules round them.

Weights keep the layout of the modules. `weight_scale` marks a weight quantised to int8 with one
float32 factor per output row. Block sizes are module constants read while tracing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from qtts_jax.layers.attention import attend, write
from qtts_jax.layers.rope import Rotation, rotate

# Output rows per program and warps per program of the matrix-vector kernels.
MATVEC_ROWS, MATVEC_WARPS = 8, 4
ADD_ROWS, ADD_WARPS = 4, 4
GATE_UP_ROWS, GATE_UP_WARPS = 4, 4
# Widest piece of a weight row held as one tile; wider rows are several tiles, loaded together.
COLUMNS = 1024
# Cache rows per step of attention.
ATTENTION_TILE, ATTENTION_WARPS = 64, 4
# A cache of a single tile, such as the code predictor's: one warp needs no barriers.
SMALL_ATTENTION_SLOTS, SMALL_ATTENTION_WARPS = 32, 1
# Up to how many slots one program attends for a query head.
SINGLE_PROGRAM_SLOTS = 256
# Programs per head over a longer cache (a power of two): 8 heads of 16 fill 132 processors.
SPLITS = 16
SELECT_WARPS = 8

F32 = jnp.float32
Scalar = jax.Array | int | float | bool


class BlockWeights(NamedTuple):
    """The arrays of one transformer block, as its modules store them.

    Attributes:
        attention_norm, ffn_norm: [D].
        qkv: [K, G+2, h, D].
        q_norm, k_norm: [h], or None without query and key normalization.
        out: [D, K, G, h].
        gate_up: [2, F, D].
        down: [D, F].
        qkv_scale, out_scale, gate_up_scale, down_scale: float32 factors of the output rows of
            int8 weights (qkv_scale [K, G+2, h], out_scale [D], gate_up_scale [2, F],
            down_scale [D]); None for weights that are not quantised.
    """

    attention_norm: jax.Array
    qkv: jax.Array
    q_norm: jax.Array | None
    k_norm: jax.Array | None
    out: jax.Array
    ffn_norm: jax.Array
    gate_up: jax.Array
    down: jax.Array
    qkv_scale: jax.Array | None = None
    out_scale: jax.Array | None = None
    gate_up_scale: jax.Array | None = None
    down_scale: jax.Array | None = None


def plain_rms_norm(x: jax.Array, scale: jax.Array | None, eps: float) -> jax.Array:
    """`RMSNorm` over the last axis of x with an explicit scale; None returns x."""
    if scale is None:
        return x
    y = x.astype(F32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + eps)
    return scale * y.astype(x.dtype)


def plain_matvec(x: jax.Array, w: jax.Array, weight_scale: jax.Array | None = None) -> jax.Array:
    """W x in float32, rounded to the type of x: x [D], w [..., D] -> [...]."""
    y = jnp.einsum("i,...i->...", x.astype(F32), w.astype(F32))
    return (y if weight_scale is None else y * weight_scale).astype(x.dtype)


def plain_norm_matvec(
    x: jax.Array,
    scale: jax.Array | None,
    w: jax.Array,
    eps: float,
    *,
    book: Scalar | None = None,
    weight_scale: jax.Array | None = None,
) -> jax.Array:
    """Definition of `norm_matvec`."""
    if book is not None:
        w = w[book]
        weight_scale = None if weight_scale is None else weight_scale[book]
    return plain_matvec(plain_rms_norm(x, scale, eps), w, weight_scale)


def norm_matvec(
    x: jax.Array,
    scale: jax.Array | None,
    w: jax.Array,
    eps: float,
    *,
    book: Scalar | None = None,
    weight_scale: jax.Array | None = None,
    interpret: bool = False,
) -> jax.Array:
    """W rms_norm(x); every program normalizes x again while its weights arrive.

    Args:
        x: [D].
        scale: [D] of the norm; None for no norm.
        w: [N, D], or [L, N, D] with `book`: taking the slice in the kernel saves the copy that
            `w[book]` would be.
        book: int32 scalar, which of the L matrices.
        weight_scale: [N] or [L, N] float32 of an int8 w.

    Returns:
        [N] in the type of x.
    """
    rows = w.shape[-2]
    block = math.gcd(rows, MATVEC_ROWS)
    inputs = (x, scale, w, weight_scale, None if book is None else _cell(book, jnp.int32))
    return pl.pallas_call(
        partial(_norm_matvec_kernel, eps=eps, block=block),
        grid=(rows // block,),
        out_shape=jax.ShapeDtypeStruct((rows,), x.dtype),
        compiler_params=plgpu.CompilerParams(num_warps=MATVEC_WARPS),
        interpret=interpret,
        name="norm_matvec",
    )(*inputs)


def _norm_matvec_kernel(x, scale, w, weight_scale, book, out, *, eps: float, block: int) -> None:
    rows = pl.ds(pl.program_id(0) * block, block)
    at = (rows,) if book is None else (book[0], rows)
    chunks = _chunks(w.shape[-1])
    # Weights first, so that they are on their way while x is normalized.
    tiles = [w[(*at, c)] for c in chunks]
    vector = _normalized(x, scale, eps, chunks)
    y = _rows_times(tiles, vector)
    if weight_scale is not None:
        y = y * weight_scale[at]
    out[rows] = y.astype(out.dtype)


def plain_matvec_add(
    x: jax.Array, w: jax.Array, residual: jax.Array, *, weight_scale: jax.Array | None = None
) -> jax.Array:
    """Definition of `matvec_add`."""
    return residual + plain_matvec(x, w, weight_scale)


def matvec_add(
    x: jax.Array,
    w: jax.Array,
    residual: jax.Array,
    *,
    weight_scale: jax.Array | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Residual + W x; also a linear map with bias (the residual is the bias).

    Args:
        x: [C].
        w: [N, C].
        residual: [N] in the type of x.
        weight_scale: [N] float32 of an int8 w.

    Returns:
        [N] in the type of x.
    """
    rows = w.shape[0]
    block = math.gcd(rows, ADD_ROWS)
    return pl.pallas_call(
        partial(_matvec_add_kernel, block=block),
        grid=(rows // block,),
        out_shape=jax.ShapeDtypeStruct((rows,), x.dtype),
        compiler_params=plgpu.CompilerParams(num_warps=ADD_WARPS),
        interpret=interpret,
        name="matvec_add",
    )(x, w, residual, weight_scale)


def _matvec_add_kernel(x, w, residual, weight_scale, out, *, block: int) -> None:
    rows = pl.ds(pl.program_id(0) * block, block)
    chunks = _chunks(w.shape[-1])
    tiles = [w[rows, c] for c in chunks]
    y = _rows_times(tiles, [x[c].astype(F32) for c in chunks])
    if weight_scale is not None:
        y = y * weight_scale[rows]
    out[rows] = (residual[rows].astype(F32) + _rounded(y, out.dtype)).astype(out.dtype)


def plain_norm_gate_up(
    x: jax.Array,
    scale: jax.Array,
    w: jax.Array,
    eps: float,
    *,
    weight_scale: jax.Array | None = None,
) -> jax.Array:
    """Definition of `norm_gate_up`."""
    y = plain_matvec(plain_rms_norm(x, scale, eps), w, weight_scale)
    return jax.nn.silu(y[0]) * y[1]


def norm_gate_up(
    x: jax.Array,
    scale: jax.Array,
    w: jax.Array,
    eps: float,
    *,
    weight_scale: jax.Array | None = None,
    interpret: bool = False,
) -> jax.Array:
    """The first half of `SwiGLU` with the norm before it: silu(gate) * up.

    Args:
        x, scale: [D].
        w: [2, F, D], gate then up.
        weight_scale: [2, F] float32 of an int8 w.

    Returns:
        [F] in the type of x.
    """
    rows = w.shape[1]
    block = math.gcd(rows, GATE_UP_ROWS)
    return pl.pallas_call(
        partial(_norm_gate_up_kernel, eps=eps, block=block),
        grid=(rows // block,),
        out_shape=jax.ShapeDtypeStruct((rows,), x.dtype),
        compiler_params=plgpu.CompilerParams(num_warps=GATE_UP_WARPS),
        interpret=interpret,
        name="norm_gate_up",
    )(x, scale, w, weight_scale)


def _norm_gate_up_kernel(x, scale, w, weight_scale, out, *, eps: float, block: int) -> None:
    rows = pl.ds(pl.program_id(0) * block, block)
    chunks = _chunks(w.shape[-1])
    tiles = [[w[half, rows, c] for c in chunks] for half in range(2)]
    vector = _normalized(x, scale, eps, chunks)
    gate, up = (_rows_times(half, vector) for half in tiles)
    if weight_scale is not None:
        gate, up = gate * weight_scale[0, rows], up * weight_scale[1, rows]
    gate, up = _rounded(gate, out.dtype), _rounded(up, out.dtype)
    silu = _rounded(gate * _rounded(1 / (1 + jnp.exp(-gate)), out.dtype), out.dtype)
    out[rows] = (silu * up).astype(out.dtype)


def plain_attention(
    qkv: jax.Array,
    q_scale: jax.Array | None,
    k_scale: jax.Array | None,
    cos: jax.Array,
    sin: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    position: Scalar,
    eps: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Definition of `attention`."""
    turn = Rotation(cos[None, None], sin[None, None])
    q = rotate(plain_rms_norm(qkv[:, :-2], q_scale, eps)[None, None], turn)
    k = rotate(plain_rms_norm(qkv[:, -2], k_scale, eps)[None, None], turn)
    start = jnp.asarray(position)[None]
    keys = write(keys[None], k, start)
    values = write(values[None], qkv[:, -1][None, None], start)
    mask = (jnp.arange(keys.shape[1]) <= position)[None, None]
    return attend(q, keys, values, mask)[0, 0], keys[0], values[0]


def attention(
    qkv: jax.Array,
    q_scale: jax.Array | None,
    k_scale: jax.Array | None,
    cos: jax.Array,
    sin: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    position: Scalar,
    eps: float,
    *,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Attention of one new position, from merged projections to mixed heads, cache written.

    The new key and value are used from registers, so that no program reads what another writes.
    Only slots below `position` are read. A long cache is split over programs, whose partial
    softmax sums a second kernel combines (flash decoding).

    Args:
        qkv: [K, G+2, h]; per head its G queries, its key, its value. h is a power of two.
        q_scale, k_scale: [h], or both None without query and key normalization.
        cos, sin: [h/2] float32, of this position.
        keys, values: [S, K, h]; updated in place where the caller gives them up.
        position: int32 scalar, filled slots. As in `attention.write`, a full cache has its last
            slot overwritten.

    Returns:
        [K, G, h] in the type of values, keys, values.
    """
    slots, heads, width = keys.shape
    groups = qkv.shape[1] - 2
    small = slots <= SMALL_ATTENTION_SLOTS
    tile = pl.next_power_of_2(slots) if small else ATTENTION_TILE
    splits = 1 if small or slots <= SINGLE_PROGRAM_SLOTS else SPLITS
    # Short caches are bound by latency, so each query has its own program; long ones by memory,
    # so the queries of a head share what is read.
    queries = 1 if splits == 1 else groups
    params = plgpu.CompilerParams(num_warps=SMALL_ATTENTION_WARPS if small else ATTENTION_WARPS)
    cache = [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in (keys, values)]
    if splits == 1:
        result = [jax.ShapeDtypeStruct((heads, groups, width), values.dtype)]
    else:
        sums = jax.ShapeDtypeStruct((heads, groups, splits), F32)
        result = [sums, sums, jax.ShapeDtypeStruct((heads, groups, splits, width), F32)]
    new_keys, new_values, *parts = pl.pallas_call(
        partial(_attention_kernel, eps=eps, tile=tile, splits=splits, queries=queries),
        grid=(heads, groups // queries, splits),
        out_shape=[*cache, *result],
        input_output_aliases={0: 0, 1: 1},
        compiler_params=params,
        interpret=interpret,
        name="attention",
    )(keys, values, qkv, q_scale, k_scale, cos, sin, _cell(position, jnp.int32))
    if splits == 1:
        return parts[0], new_keys, new_values
    out = pl.pallas_call(
        _combine_kernel,
        grid=(heads, groups),
        out_shape=jax.ShapeDtypeStruct((heads, groups, width), values.dtype),
        compiler_params=params,
        interpret=interpret,
        name="attention_combine",
    )(*parts)
    return out, new_keys, new_values


def _attention_kernel(
    keys, values, qkv, q_scale, k_scale, cos, sin, position, new_keys, new_values, *out,
    eps: float, tile: int, splits: int, queries: int,
) -> None:  # fmt: skip
    head, split = pl.program_id(0), pl.program_id(2)
    first_query = pl.program_id(1) * queries
    slots, _, width = keys.shape
    groups, half = qkv.shape[1] - 2, width // 2
    # Rotation pairs element i with i + h/2, so heads are handled as two halves throughout.
    low, high = pl.ds(0, half), pl.ds(half, half)
    slot = jnp.minimum(position[0], slots - 1)
    c, s = cos[...], sin[...]

    def turned(row: jax.Array | int, scale) -> tuple[jax.Array, jax.Array]:
        a, b = qkv[head, row, low].astype(F32), qkv[head, row, high].astype(F32)
        if scale is not None:
            factor = jax.lax.rsqrt(jnp.sum(a * a + b * b) / width + eps)
            a = _rounded(_rounded(a * factor, qkv.dtype) * scale[low].astype(F32), qkv.dtype)
            b = _rounded(_rounded(b * factor, qkv.dtype) * scale[high].astype(F32), qkv.dtype)
        return _rounded(a * c - b * s, qkv.dtype), _rounded(b * c + a * s, qkv.dtype)

    def look(start: jax.Array | int, sums: Sequence[Any]) -> list[Any]:
        """Add the slots from `start` to the running (max, sum, weighted values) of each query."""
        here = pl.ds(start, tile)
        valid = start + jnp.arange(tile) < slot
        # Empty slots hold anything: they must not reach the sums even with weight 0.
        load = partial(plgpu.load, mask=valid[:, None], other=0)
        a, b = (load(keys.at[here, head, part]).astype(F32) for part in (low, high))
        v = load(values.at[here, head, pl.ds(0, width)]).astype(F32)
        new = []
        for (qa, qb), (top, total, mixed) in zip(turned_queries, sums, strict=True):
            score = jnp.sum(a * qa[None, :] + b * qb[None, :], axis=1) * width**-0.5
            score = jnp.where(valid, score, -jnp.inf)
            best = jnp.maximum(top, jnp.max(score))
            weight, keep = jnp.exp(score - best), jnp.exp(top - best)
            mixed = mixed * keep + jnp.sum(weight[:, None] * v, axis=0)
            new.append((best, total * keep + jnp.sum(weight), mixed))
        return new

    turned_queries = [turned(first_query + i, q_scale) for i in range(queries)]
    key_a, key_b = (_rounded(t, keys.dtype) for t in turned(groups, k_scale))
    value = _rounded(qkv[head, groups + 1, pl.ds(0, width)].astype(F32), values.dtype)

    # The first program of a head counts the new position.
    first = split == 0
    sums = []
    for qa, qb in turned_queries:
        score = jnp.sum(qa * key_a + qb * key_b) * width**-0.5
        sums.append(
            (
                jnp.where(first, score, -jnp.inf),
                (1 - jnp.minimum(split, 1)).astype(F32),
                jnp.where(jnp.broadcast_to(first, value.shape), value, 0.0),
            )
        )
    if slots <= tile and splits == 1:
        # A start that is not static, because a static slice may not pass the end, even masked.
        sums = look(split, sums)
    else:
        # Tiles are dealt in turn, so all programs are busy however much of the cache is filled.
        steps = (pl.cdiv(slot, tile) - split + splits - 1) // splits
        sums = jax.lax.fori_loop(
            0, steps, lambda i, carry: look((split + i * splits) * tile, carry), sums
        )

    # Last, because loads cannot move above stores that might touch the same memory.
    @pl.when(first & (first_query == 0))
    def write_new() -> None:
        new_keys[slot, head, low] = key_a.astype(keys.dtype)
        new_keys[slot, head, high] = key_b.astype(keys.dtype)
        new_values[slot, head, pl.ds(0, width)] = value.astype(values.dtype)

    for i, (top, total, mixed) in enumerate(sums):
        g = first_query + i
        if splits == 1:
            out[0][head, g, pl.ds(0, width)] = (mixed / total).astype(out[0].dtype)
        else:
            out[0][head, g, split] = top
            out[1][head, g, split] = total
            out[2][head, g, split, pl.ds(0, width)] = mixed


def _combine_kernel(tops, totals, mixed, out) -> None:
    head, group = pl.program_id(0), pl.program_id(1)
    splits, width = mixed.shape[2:]
    top = tops[head, group, pl.ds(0, splits)]
    weight = jnp.exp(top - jnp.max(top))
    total = jnp.sum(weight * totals[head, group, pl.ds(0, splits)])
    parts = mixed[head, group, pl.ds(0, splits), pl.ds(0, width)]
    y = jnp.sum(weight[:, None] * parts, axis=0) / total
    out[head, group, pl.ds(0, width)] = y.astype(out.dtype)


def plain_select(
    logits: jax.Array, noise: jax.Array, temperature: Scalar, top_k: Scalar, do_sample: Scalar
) -> jax.Array:
    """Definition of `select`."""
    scaled = logits / temperature
    kth = jnp.sort(scaled)[logits.shape[0] - jnp.minimum(top_k, logits.shape[0])]
    drawn = jnp.where(scaled < kth, -jnp.inf, scaled) + noise
    return jnp.argmax(jnp.where(do_sample, drawn, logits)).astype(jnp.int32)


def select(
    logits: jax.Array,
    noise: jax.Array,
    temperature: Scalar,
    top_k: Scalar,
    do_sample: Scalar,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Draw from the k best by Gumbel noise, or take the best; the first of equals.

    The k-th best value is found without a sort: its float32 bits, as ordered integers, are fixed
    from the top by counting how many values are no smaller.

    Args:
        logits: [V] float32 without NaN.
        noise: [V] float32, standard Gumbel, finite; not read without `do_sample`.
        temperature: float32 scalar above 0.
        top_k: int32 scalar, at least 1; V or more keeps all. Ties with the k-th stay.
        do_sample: bool scalar.

    Returns:
        [] int32.
    """
    cells = _cell(temperature, F32), _cell(top_k, jnp.int32), _cell(do_sample, jnp.int32)
    return pl.pallas_call(
        _select_kernel,
        grid=(1,),
        out_shape=jax.ShapeDtypeStruct((1,), jnp.int32),
        compiler_params=plgpu.CompilerParams(num_warps=SELECT_WARPS),
        interpret=interpret,
        name="select",
    )(logits, noise, *cells)[0]


def _select_kernel(logits, noise, temperature, top_k, do_sample, out) -> None:
    vocab = logits.shape[0]
    size = pl.next_power_of_2(vocab)
    # A start that is not static, because a static slice may not pass the end, even masked.
    real, all_ids = jnp.arange(size) < vocab, pl.ds(pl.program_id(0), size)
    raw = plgpu.load(logits.at[all_ids], mask=real, other=-jnp.inf)
    sampling = do_sample[0] != 0
    gumbel = plgpu.load(noise.at[all_ids], mask=real & sampling, other=0.0)
    scaled = raw / temperature[0]
    # -0 and 0 are equal but differ in bits. The sign bit flips the order of the others.
    bits = jax.lax.bitcast_convert_type(jnp.where(scaled == 0, 0.0, scaled), jnp.int32)
    order = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    k = jnp.minimum(top_k[0], vocab)

    def narrow(carry):
        step, threshold, _ = carry
        # The sign bit first: adding it to the smallest integer gives 0.
        candidate = threshold + jnp.left_shift(jnp.int32(1), 31 - step)
        count = jnp.sum((order >= candidate).astype(jnp.int32))
        enough = count >= k
        # Exactly k values are left: lower bits cannot matter.
        step = jnp.where(count == k, 32, step + 1)
        return step, jnp.where(enough, candidate, threshold), count

    start = jnp.int32(0), jnp.int32(-(2**31)), jnp.int32(size)
    start = (jnp.where(sampling & (k < vocab), start[0], 32), *start[1:])
    _, threshold, _ = jax.lax.while_loop(lambda carry: carry[0] < 32, narrow, start)
    drawn = jnp.where(order >= threshold, scaled, -jnp.inf) + gumbel
    out[0] = jnp.argmax(jnp.where(sampling, drawn, raw), axis=0).astype(jnp.int32)


def plain_layer_step(
    x: jax.Array,
    weights: BlockWeights,
    keys: jax.Array,
    values: jax.Array,
    cos: jax.Array,
    sin: jax.Array,
    position: Scalar,
    eps: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Definition of `layer_step`."""
    w = weights
    y = plain_matvec(plain_rms_norm(x, w.attention_norm, eps), w.qkv, w.qkv_scale)
    y, keys, values = plain_attention(y, w.q_norm, w.k_norm, cos, sin, keys, values, position, eps)
    x = plain_matvec_add(y.reshape(-1), w.out.reshape(x.shape[0], -1), x, weight_scale=w.out_scale)
    y = plain_norm_gate_up(x, w.ffn_norm, w.gate_up, eps, weight_scale=w.gate_up_scale)
    return plain_matvec_add(y, w.down, x, weight_scale=w.down_scale), keys, values


def layer_step(
    x: jax.Array,
    weights: BlockWeights,
    keys: jax.Array,
    values: jax.Array,
    cos: jax.Array,
    sin: jax.Array,
    position: Scalar,
    eps: float,
    *,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One transformer block over one new position of one row, as five or six kernels.

    Args:
        x: [D].
        keys, values: [S, K, h].
        cos, sin: [h/2] float32, of this position.
        position: int32 scalar, filled slots.

    Returns:
        x [D], keys, values.
    """
    w = weights
    heads, per_head, width, _ = w.qkv.shape
    qkv = norm_matvec(
        x,
        w.attention_norm,
        w.qkv.reshape(-1, x.shape[0]),
        eps,
        weight_scale=None if w.qkv_scale is None else w.qkv_scale.reshape(-1),
        interpret=interpret,
    ).reshape(heads, per_head, width)
    y, keys, values = attention(
        qkv, w.q_norm, w.k_norm, cos, sin, keys, values, position, eps, interpret=interpret
    )
    x = matvec_add(
        y.reshape(-1),
        w.out.reshape(x.shape[0], -1),
        x,
        weight_scale=w.out_scale,
        interpret=interpret,
    )
    y = norm_gate_up(
        x, w.ffn_norm, w.gate_up, eps, weight_scale=w.gate_up_scale, interpret=interpret
    )
    x = matvec_add(y, w.down, x, weight_scale=w.down_scale, interpret=interpret)
    return x, keys, values


def _cell(value: Scalar, dtype: Any) -> jax.Array:
    """A scalar as the [1] array that a kernel reads."""
    return jnp.asarray(value).astype(dtype).reshape(1)


def _chunks(width: int) -> list[Any]:
    """Slices of equal power-of-two size that cover `width`: Triton knows no other tile sizes."""
    size = min(width & -width, COLUMNS)
    return [pl.ds(start, size) for start in range(0, width, size)]


def _rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """Float32 values as `dtype` would hold them."""
    return x.astype(dtype).astype(F32)


def _normalized(x, scale, eps: float, chunks: Sequence[Any]) -> list[jax.Array]:
    """RMSNorm of the vector behind reference x, in float32 chunks rounded as the module does."""
    parts = [x[c].astype(F32) for c in chunks]
    if scale is None:
        return parts
    squares = sum((p * p for p in parts[1:]), parts[0] * parts[0])
    factor = jax.lax.rsqrt(jnp.sum(squares) / x.shape[0] + eps)
    dtype = jnp.promote_types(x.dtype, scale.dtype)
    return [
        _rounded(_rounded(p * factor, x.dtype) * scale[c].astype(F32), dtype)
        for p, c in zip(parts, chunks, strict=True)
    ]


def _rows_times(tiles: Sequence[jax.Array], vector: Sequence[jax.Array]) -> jax.Array:
    """Float32 products of the rows of a weight, in tiles [rows, columns], with a vector."""
    products = [t.astype(F32) * v[None, :] for t, v in zip(tiles, vector, strict=True)]
    return jnp.sum(sum(products[1:], products[0]), axis=1)
