"""A transformer over whole sequences for training: no caches, rematerialised blocks.

Inference runs blocks with explicit caches (`modules/transformer.py`). A training sequence needs
none of them, and neither the [T, T] scores of every head: attention over the sequence itself is
one fused call where the device has one, for long sequences as for the few positions of a frame.
`Transformer.__call__` defines the values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from qtts_jax.errors import ConfigError
from qtts_jax.layers import dispatch
from qtts_jax.layers.attention import Attention
from qtts_jax.layers.kernels import frame_attention as frames
from qtts_jax.layers.norm import rms_norm
from qtts_jax.layers.rope import RopeAngles, apply_rope, rope_angles
from qtts_jax.modules.transformer import Block, Transformer
from qtts_jax.placement import per_shard, platform, split_rows, traced_mesh

Remat = Literal["none", "blocks", "products"]
AttentionKernel = Literal["auto", "plain", "cudnn", "frames"]
Function = Callable[[jax.Array], jax.Array]


def run_stack(
    stack: Transformer,
    x: jax.Array,
    *,
    remat: Remat = "none",
    attention: AttentionKernel = "auto",
) -> jax.Array:
    """`stack(x)` for a full sequence, with fused attention and rematerialised blocks.

    Every position sees itself and all earlier ones, so right padding needs no mask: it changes
    nothing before it, and its own outputs are meaningless.

    Args:
        stack: without a window.
        x: [B, T, D].
        remat: what the backward pass computes again: "none"; all of the "blocks" from their
            inputs, which keeps [B, T, D] a block; or everything but the results of matrix
            "products", which keeps about ten times that and saves most of the second forward pass.
        attention: "cudnn" needs an NVIDIA GPU and a 16-bit type; "frames" is for many sequences
            of 16 or 32 positions (`frame_attention.py`; interpreted without a GPU); "plain" keeps
            scores of [B, H, T, T]; "auto" takes what is best here.

    Raises:
        ConfigError: the stack has a window, or "frames" does not take its shapes.
    """
    c = stack.config
    if c.window is not None:
        raise ConfigError("run_stack is for attention without a window; set window to None.")
    fits = c.qk_norm and frames.fits(x.shape[1], c.heads // c.kv_heads, c.head_dim)
    if attention == "auto":
        attention = dispatch.sequence_backend(x.shape[1], x.dtype, fits)
    elif attention == "frames" and not fits:
        raise ConfigError(
            f"attention 'frames' takes normalized heads over 16 or 32 positions, not {x.shape[1]} "
            f"positions, {c.heads // c.kv_heads} queries a key, width {c.head_dim}; use 'auto'."
        )
    rope = rope_angles(jnp.arange(x.shape[1])[None], c.head_dim, c.rope_theta)

    def run(block: Block, x: jax.Array) -> jax.Array:
        return block(x, lambda y: (_attention(block.attention, y, rope, attention), None))[0]

    x = split_rows(x)
    for i, block in enumerate(stack.layers):
        with jax.named_scope(f"layer_{i}"):
            x = split_rows(_rematerialised(functools.partial(run, block), remat)(x))
    return x if stack.norm is None else stack.norm(x)


def _rematerialised(function: Function, remat: Remat) -> Function:
    if remat == "none":
        return function
    policies = jax.checkpoint_policies
    policy = None if remat == "blocks" else policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(function, policy=policy)


def _attention(
    layer: Attention, x: jax.Array, rope: RopeAngles, kernel: AttentionKernel
) -> jax.Array:
    """`Attention.step` from an empty cache: [B, T, D] -> [B, T, D]."""
    qkv, eps = layer.qkv(x), layer.config.norm_eps
    q_scale, k_scale = (
        None if norm is None else norm.scale[...] for norm in (layer.q_norm, layer.k_norm)
    )
    if kernel == "plain":
        return layer.out(frames.plain_attention(qkv, q_scale, k_scale, rope, eps))
    if kernel == "frames":
        interpret = platform() != "gpu"

        def attend(q_scale: Any, k_scale: Any, rope: RopeAngles, qkv: jax.Array) -> jax.Array:
            return frames.frame_attention(qkv, q_scale, k_scale, rope, eps, interpret)

        # XLA cannot split the kernel, so every device runs it on its own rows.
        return layer.out(per_shard(attend, traced_mesh(), 3)(q_scale, k_scale, rope, qkv))
    q = apply_rope(rms_norm(qkv[..., :-2, :], q_scale, eps), rope)
    k = apply_rope(rms_norm(qkv[..., -2, :], k_scale, eps), rope)
    # Query heads of one key/value head are neighbours here, as the fused call expects.
    heads = q.reshape(*q.shape[:2], -1, q.shape[-1])
    y = _fused_attention(heads, k, qkv[..., -1, :])
    return layer.out(y.reshape(q.shape))


def _fused_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Causal attention by cuDNN: [B, T, H, D], [B, T, K, D], [B, T, K, D] -> [B, T, H, D].

    cuDNN has gradients for even lengths alone, so an odd one gets a last position, which no other
    one sees.
    """
    length = q.shape[1]
    if length % 2:
        q, k, v = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (q, k, v))
    return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")[:, :length]
