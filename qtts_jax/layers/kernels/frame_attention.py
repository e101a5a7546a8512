"""Attention over many short sequences at once: the codebooks of every frame, with gradients.

For the code predictor every frame is a sequence of 16 positions. XLA compiles norms, RoPE, scores,
softmax, weighted sum and their gradients to some thirty kernels, which move about five times the
bytes of inputs and outputs; that traffic, not the products, takes most of the time of this layer.
Here each direction is one kernel that reads and writes inputs and outputs only. `plain_attention`
defines the values.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from qtts_jax.layers.attention import attend
from qtts_jax.layers.norm import rms_norm
from qtts_jax.layers.rope import RopeAngles, apply_rope

F32 = jnp.float32
# Matrix units multiply tiles of at least 16; longer sequences than this would not fit registers.
LEAST, LONGEST = 16, 32
# Neither direction spills registers with four warps, and several programs fit on a processor; they
# hide each other's waiting, so nothing is loaded ahead within one (`num_stages`).
PROGRAM = plgpu.CompilerParams(num_warps=4, num_stages=1)
Pair = tuple[jax.Array, jax.Array]


def fits(steps: int, groups: int, width: int) -> bool:
    """Whether the kernels take sequences of `steps` with G = `groups` and heads of `width`."""
    powers = all(n & (n - 1) == 0 for n in (steps, groups, width))
    return powers and LEAST <= steps <= LONGEST and width >= 2 * LEAST


def plain_attention(
    qkv: jax.Array,
    q_scale: jax.Array | None,
    k_scale: jax.Array | None,
    rope: RopeAngles,
    eps: float,
) -> jax.Array:
    """Causal attention of merged projections [B, T, K, G+2, h] -> [B, T, K, G, h].

    Args:
        q_scale, k_scale: [h], or both None without query and key normalization.
        rope: of the T positions, [1, T, h/2].
    """
    q = apply_rope(rms_norm(qkv[..., :-2, :], q_scale, eps), rope)
    k = apply_rope(rms_norm(qkv[..., -2, :], k_scale, eps), rope)
    rows, steps = qkv.shape[:2]
    at = jnp.arange(steps)
    mask = jnp.broadcast_to(at[:, None] >= at, (rows, steps, steps))
    return attend(q, k, qkv[..., -1, :], mask)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def frame_attention(
    qkv: jax.Array,
    q_scale: jax.Array,
    k_scale: jax.Array,
    rope: RopeAngles,
    eps: float,
    interpret: bool = False,
) -> jax.Array:
    """`plain_attention` by one kernel, for shapes that `fits` admits.

    Args:
        interpret: run without a GPU.
    """
    rows, time, heads, merged, width = qkv.shape
    out: jax.Array = pl.pallas_call(
        functools.partial(_forward_kernel, eps=eps),
        grid=(rows,),
        out_shape=jax.ShapeDtypeStruct((rows, time, heads, merged - 2, width), qkv.dtype),
        compiler_params=PROGRAM,
        interpret=interpret,
        name="frame_attention",
    )(qkv, q_scale, k_scale, rope.cos[0], rope.sin[0])
    return out


def _forward(
    qkv: jax.Array,
    q_scale: jax.Array,
    k_scale: jax.Array,
    rope: RopeAngles,
    eps: float,
    interpret: bool,
) -> tuple[jax.Array, Any]:
    out = frame_attention(qkv, q_scale, k_scale, rope, eps, interpret)
    return out, (qkv, q_scale, k_scale, rope)


def _backward(eps: float, interpret: bool, kept: Any, given: jax.Array) -> tuple[Any, ...]:
    qkv, q_scale, k_scale, rope = kept
    rows, width = qkv.shape[0], qkv.shape[-1]
    # Scales are shared by all rows: every program leaves its sum over positions and heads.
    of_row = jax.ShapeDtypeStruct((rows, width), F32)
    to_qkv, to_q, to_k = pl.pallas_call(
        functools.partial(_backward_kernel, eps=eps),
        grid=(rows,),
        out_shape=[jax.ShapeDtypeStruct(qkv.shape, qkv.dtype), of_row, of_row],
        compiler_params=PROGRAM,
        interpret=interpret,
        name="frame_attention_gradient",
    )(qkv, q_scale, k_scale, rope.cos[0], rope.sin[0], given)
    to_q, to_k = (jnp.sum(x, axis=0).astype(q_scale.dtype) for x in (to_q, to_k))
    return to_qkv, to_q, to_k, None


frame_attention.defvjp(_forward, _backward)


def _halves(width: int) -> tuple[Any, Any]:
    """Heads are two halves throughout, because rotation pairs element i with i + h/2."""
    return pl.ds(0, width // 2), pl.ds(width // 2, width // 2)


def _normal(x: Pair, eps: float) -> tuple[Pair, jax.Array]:
    """Float32 halves divided by their root mean square, and one over that."""
    square = jnp.sum(x[0] * x[0] + x[1] * x[1], axis=-1, keepdims=True)
    factor = jax.lax.rsqrt(square / (2 * x[0].shape[-1]) + eps)
    return (x[0] * factor, x[1] * factor), factor


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.dot(a, b, preferred_element_type=F32)


class _Heads:
    """The queries (G of them) or the key of one head of one frame, read anew at every use.

    Reading again costs nothing, as the cache has it; registers are what these kernels run out of.

    Args:
        qkv: the ref [B, T, K, G+2, h].
        at: index of a frame, its positions, a head, and queries or key.
        scale, cos, sin: refs [h], [T, h/2], [T, h/2].
    """

    def __init__(
        self,
        qkv: jax.Ref,
        at: tuple[Any, ...],
        scale: jax.Ref,
        cos: jax.Ref,
        sin: jax.Ref,
        eps: float,
    ) -> None:
        self.qkv, self.at, self.scale, self.eps = qkv, at, scale, eps
        self.cos, self.sin, self.parts = cos, sin, _halves(qkv.shape[-1])
        self.many = isinstance(at[-1], pl.Slice)

    def _rope(self) -> Pair:
        cos, sin = self.cos[...], self.sin[...]
        return (cos[:, None], sin[:, None]) if self.many else (cos, sin)

    def _normal(self) -> tuple[Pair, jax.Array]:
        low, high = (self.qkv[(*self.at, part)].astype(F32) for part in self.parts)
        return _normal((low, high), self.eps)

    def rotated(self) -> Pair:
        """Normalized, scaled and rotated halves [T (G), h/2], rounded as the plain layers do."""
        dtype, (cos, sin) = self.qkv.dtype, self._rope()
        normal, _ = self._normal()
        a, b = (
            (x.astype(dtype) * self.scale[part]).astype(F32)
            for x, part in zip(normal, self.parts, strict=True)
        )
        rotated = (a * cos - b * sin).astype(dtype), (b * cos + a * sin).astype(dtype)
        return rotated[0].reshape(-1, a.shape[-1]), rotated[1].reshape(-1, a.shape[-1])

    def write_gradient(self, to_qkv: jax.Ref, given: Pair) -> Pair:
        """Back through rotation and norm: writes the input's gradient, returns the scale's.

        Args:
            to_qkv: the ref written to, as `qkv`.
            given: gradient of `rotated`, float32.

        Returns:
            Halves [h/2], summed over positions and queries.
        """
        (cos, sin), (normal, factor) = self._rope(), self._normal()
        a, b = (x.reshape(normal[0].shape) for x in given)
        a, b = a * cos + b * sin, b * cos - a * sin
        width = a.shape[-1]
        sums = tuple(
            jnp.sum((x * n).reshape(-1, width), axis=0) for x, n in zip((a, b), normal, strict=True)
        )
        a, b = (
            x * self.scale[part].astype(F32) for x, part in zip((a, b), self.parts, strict=True)
        )
        along = jnp.sum(a * normal[0] + b * normal[1], axis=-1, keepdims=True) / (2 * width)
        for x, n, part in zip((a, b), normal, self.parts, strict=True):
            to_qkv[(*self.at, part)] = (factor * (x - n * along)).astype(to_qkv.dtype)
        return sums[0], sums[1]


def _weights(q: Pair, k: Pair, groups: int) -> jax.Array:
    """Softmax over earlier positions: q halves [T G, h/2], k halves [T, h/2] -> [T G, T]."""
    scores = _product(q[0], k[0].T) + _product(q[1], k[1].T)
    scores = scores * (2 * q[0].shape[-1]) ** -0.5
    query = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0) // groups
    key = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    scores = jnp.where(query >= key, scores, jnp.finfo(F32).min)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


def _forward_kernel(
    qkv: jax.Ref,
    q_scale: jax.Ref,
    k_scale: jax.Ref,
    cos: jax.Ref,
    sin: jax.Ref,
    out: jax.Ref,
    *,
    eps: float,
) -> None:
    _, steps, heads, merged, width = qkv.shape
    groups, row, parts = merged - 2, pl.program_id(0), _halves(width)

    def head(j: jax.Array, _: int) -> int:
        queries = (row, slice(None), j, pl.ds(0, groups))
        q = _Heads(qkv, queries, q_scale, cos, sin, eps).rotated()
        k = _Heads(qkv, (row, slice(None), j, groups), k_scale, cos, sin, eps).rotated()
        weights = _weights(q, k, groups).astype(qkv.dtype)
        for part in parts:
            mixed = _product(weights, qkv[row, :, j, groups + 1, part])
            mixed = mixed.astype(out.dtype).reshape(steps, groups, width // 2)
            out[(*queries, part)] = mixed
        return 0

    jax.lax.fori_loop(0, heads, head, 0)


def _backward_kernel(
    qkv: jax.Ref,
    q_scale: jax.Ref,
    k_scale: jax.Ref,
    cos: jax.Ref,
    sin: jax.Ref,
    given: jax.Ref,
    to_qkv: jax.Ref,
    to_q_scale: jax.Ref,
    to_k_scale: jax.Ref,
    *,
    eps: float,
) -> None:
    _, _, heads, merged, width = qkv.shape
    groups, row, parts, dtype = merged - 2, pl.program_id(0), _halves(width), qkv.dtype

    def head(j: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        queries = (row, slice(None), j, pl.ds(0, groups))
        of_q = _Heads(qkv, queries, q_scale, cos, sin, eps)
        of_k = _Heads(qkv, (row, slice(None), j, groups), k_scale, cos, sin, eps)
        q, k = of_q.rotated(), of_k.rotated()
        weights = _weights(q, k, groups)
        to_weights = jnp.zeros_like(weights)
        for part in parts:
            mixed = given[(*queries, part)].reshape(-1, width // 2)
            to_weights += _product(mixed, qkv[row, :, j, groups + 1, part].T)
            to_value = _product(weights.astype(dtype).T, mixed)
            to_qkv[row, :, j, groups + 1, part] = to_value.astype(dtype)
        along = jnp.sum(to_weights * weights, axis=-1, keepdims=True)
        to_scores = (weights * (to_weights - along) * width**-0.5).astype(dtype)
        k_sums = of_k.write_gradient(
            to_qkv, (_product(to_scores.T, q[0]), _product(to_scores.T, q[1]))
        )
        q_sums = of_q.write_gradient(to_qkv, (_product(to_scores, k[0]), _product(to_scores, k[1])))
        return tuple(total + x for total, x in zip(sums, (*q_sums, *k_sums), strict=True))

    zeros = (jnp.zeros(width // 2, F32),) * 4
    sums = jax.lax.fori_loop(0, heads, head, zeros)
    for scale, found in ((to_q_scale, sums[:2]), (to_k_scale, sums[2:])):
        for part, x in zip(parts, found, strict=True):
            scale[row, part] = x
