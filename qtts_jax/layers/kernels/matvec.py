"""Matrix-vector products, fused with the norm before them or the residual sum after them.

Every function takes rows [B, D]; the kernels exist for B = 1, where a product is a stream of
weights through all processors, and the plain definitions for any B. The kernels read weights of
one value an element; int4 weights, two values a byte, take the plain definitions everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from qtts_jax.layers.dispatch import Backend
from qtts_jax.layers.kernels.common import F32, Scalar, cell, rounded
from qtts_jax.layers.norm import rms_norm
from qtts_jax.layers.quantized_weights import Quantized, Weight, matrix, product

# Output rows per program and warps per program.
MATVEC_ROWS, MATVEC_WARPS = 8, 4
ADD_ROWS, ADD_WARPS = 4, 4
GATE_UP_ROWS, GATE_UP_WARPS = 4, 4
# Widest part of a weight row held as one tile; wider rows are several tiles, loaded together.
COLUMNS = 1024


def plain_norm_matvec(
    x: jax.Array, scale: jax.Array | None, w: Weight, eps: float, codebook: Scalar | None = None
) -> jax.Array:
    """Definition of `norm_matvec`."""
    return product(rms_norm(x, scale, eps), w if codebook is None else w[codebook])


@partial(jax.jit, static_argnames=("eps", "backend"))
def norm_matvec(
    x: jax.Array,
    scale: jax.Array | None,
    w: Weight,
    eps: float,
    *,
    codebook: Scalar | None = None,
    backend: Backend,
) -> jax.Array:
    """W rms_norm(x); every program normalizes x again while its weights arrive.

    Args:
        x: [B, D].
        scale: [D] of the norm; None for no norm.
        w: [N, D], or [L, N, D] with `codebook`: taking the slice in the kernel saves the copy that
            `w[codebook]` would be.
        codebook: int32 scalar, which of the L matrices.
        backend: a kernel needs B = 1.

    Returns:
        [B, N] in the type of x.
    """
    if backend == "plain" or _packed(w):
        return plain_norm_matvec(x, scale, w, eps, codebook)
    rows = w.shape[-2]
    block = math.gcd(rows, MATVEC_ROWS)
    index = None if codebook is None else cell(codebook, jnp.int32)
    y: jax.Array = pl.pallas_call(
        partial(_norm_matvec_kernel, eps=eps, block=block),
        grid=(rows // block,),
        out_shape=jax.ShapeDtypeStruct((rows,), x.dtype),
        compiler_params=plgpu.CompilerParams(num_warps=MATVEC_WARPS),
        interpret=backend == "interpret",
        name="norm_matvec",
    )(x.reshape(-1), scale, *_parts(w), index)
    return y[None]


def _norm_matvec_kernel(
    x: jax.Ref,
    scale: jax.Ref | None,
    w: jax.Ref,
    weight_scale: jax.Ref | None,
    codebook: jax.Ref | None,
    out: jax.Ref,
    *,
    eps: float,
    block: int,
) -> None:
    rows = pl.ds(pl.program_id(0) * block, block)
    at = (rows,) if codebook is None else (codebook[0], rows)
    chunks = _chunks(w.shape[-1])
    # Weights first, so that they are on their way while x is normalized.
    tiles = [w[(*at, c)] for c in chunks]
    vector = _normalized(x, scale, eps, chunks)
    y = _rows_times(tiles, vector)
    if weight_scale is not None:
        y = y * weight_scale[at]
    out[rows] = y.astype(out.dtype)


def plain_matvec_add(x: jax.Array, w: Weight, residual: jax.Array) -> jax.Array:
    """Definition of `matvec_add`."""
    return residual + product(x, w)


@partial(jax.jit, static_argnames=("backend",))
def matvec_add(x: jax.Array, w: Weight, residual: jax.Array, *, backend: Backend) -> jax.Array:
    """Residual + W x.

    Args:
        x: [B, C].
        w: [N, C].
        residual: [B, N] in the type of x.
        backend: a kernel needs B = 1.

    Returns:
        [B, N] in the type of x.
    """
    if backend == "plain" or _packed(w):
        return plain_matvec_add(x, w, residual)
    rows = w.shape[0]
    block = math.gcd(rows, ADD_ROWS)
    y: jax.Array = pl.pallas_call(
        partial(_matvec_add_kernel, block=block),
        grid=(rows // block,),
        out_shape=jax.ShapeDtypeStruct((rows,), x.dtype),
        compiler_params=plgpu.CompilerParams(num_warps=ADD_WARPS),
        interpret=backend == "interpret",
        name="matvec_add",
    )(x.reshape(-1), *_parts(w), residual.reshape(-1))
    return y[None]


def _matvec_add_kernel(
    x: jax.Ref,
    w: jax.Ref,
    weight_scale: jax.Ref | None,
    residual: jax.Ref,
    out: jax.Ref,
    *,
    block: int,
) -> None:
    rows = pl.ds(pl.program_id(0) * block, block)
    chunks = _chunks(w.shape[-1])
    tiles = [w[rows, c] for c in chunks]
    y = _rows_times(tiles, [x[c].astype(F32) for c in chunks])
    if weight_scale is not None:
        y = y * weight_scale[rows]
    out[rows] = (residual[rows].astype(F32) + rounded(y, out.dtype)).astype(out.dtype)


def plain_norm_gate_up(x: jax.Array, scale: jax.Array, w: Weight, eps: float) -> jax.Array:
    """Definition of `norm_gate_up`."""
    y = product(rms_norm(x, scale, eps), matrix(w, x.shape[-1]))
    gate, up = jnp.split(y, 2, axis=-1)
    return jax.nn.silu(gate) * up


@partial(jax.jit, static_argnames=("eps", "backend"))
def norm_gate_up(
    x: jax.Array, scale: jax.Array, w: Weight, eps: float, *, backend: Backend
) -> jax.Array:
    """The first half of `SwiGLU` with the norm before it: silu(gate) * up.

    Args:
        x: [B, D].
        scale: [D].
        w: [2, F, D], gate then up.
        backend: a kernel needs B = 1.

    Returns:
        [B, F] in the type of x.
    """
    if backend == "plain" or _packed(w):
        return plain_norm_gate_up(x, scale, w, eps)
    rows = w.shape[1]
    block = math.gcd(rows, GATE_UP_ROWS)
    y: jax.Array = pl.pallas_call(
        partial(_norm_gate_up_kernel, eps=eps, block=block),
        grid=(rows // block,),
        out_shape=jax.ShapeDtypeStruct((rows,), x.dtype),
        compiler_params=plgpu.CompilerParams(num_warps=GATE_UP_WARPS),
        interpret=backend == "interpret",
        name="norm_gate_up",
    )(x.reshape(-1), scale, *_parts(w))
    return y[None]


def _norm_gate_up_kernel(
    x: jax.Ref,
    scale: jax.Ref,
    w: jax.Ref,
    weight_scale: jax.Ref | None,
    out: jax.Ref,
    *,
    eps: float,
    block: int,
) -> None:
    rows = pl.ds(pl.program_id(0) * block, block)
    chunks = _chunks(w.shape[-1])
    tiles = [[w[half, rows, c] for c in chunks] for half in range(2)]
    vector = _normalized(x, scale, eps, chunks)
    gate, up = (_rows_times(half, vector) for half in tiles)
    if weight_scale is not None:
        gate, up = gate * weight_scale[0, rows], up * weight_scale[1, rows]
    gate, up = rounded(gate, out.dtype), rounded(up, out.dtype)
    silu = rounded(gate * rounded(1 / (1 + jnp.exp(-gate)), out.dtype), out.dtype)
    out[rows] = (silu * up).astype(out.dtype)


def _packed(w: Weight) -> bool:
    """Whether the kernels cannot read a weight: two values a byte."""
    return isinstance(w, Quantized) and w.packed


def _parts(w: Weight) -> tuple[jax.Array, jax.Array | None]:
    """Stored values and, of a quantised weight, their factors."""
    return (w.values, w.scale) if isinstance(w, Quantized) else (w, None)


def _chunks(width: int) -> list[Any]:
    """Slices of equal power-of-two size that cover `width`: Triton knows no other tile sizes."""
    size = min(width & -width, COLUMNS)
    return [pl.ds(start, size) for start in range(0, width, size)]


def _normalized(
    x: jax.Ref, scale: jax.Ref | None, eps: float, chunks: Sequence[Any]
) -> list[jax.Array]:
    """RMSNorm of the vector behind reference x, in float32 chunks rounded as the module does."""
    parts = [x[c].astype(F32) for c in chunks]
    if scale is None:
        return parts
    squares = sum((p * p for p in parts[1:]), parts[0] * parts[0])
    factor = jax.lax.rsqrt(jnp.sum(squares) / x.shape[0] + eps)
    dtype = jnp.promote_types(x.dtype, scale.dtype)
    return [
        rounded(rounded(p * factor, x.dtype) * scale[c].astype(F32), dtype)
        for p, c in zip(parts, chunks, strict=True)
    ]


def _rows_times(tiles: Sequence[jax.Array], vector: Sequence[jax.Array]) -> jax.Array:
    """Float32 products of the rows of a weight, in tiles [rows, columns], with a vector."""
    products = [t.astype(F32) * v[None, :] for t, v in zip(tiles, vector, strict=True)]
    return jnp.sum(sum(products[1:], products[0]), axis=1)
