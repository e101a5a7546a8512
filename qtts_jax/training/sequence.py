"""A transformer over whole sequences for training: no caches, rematerialised blocks.

Inference runs blocks with explicit caches (`modules/transformer.py`). A training sequence needs
none of them, and neither the [T, T] scores of every head: attention over the sequence itself is
one fused call where the device has one. `Transformer.__call__` defines the values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from qtts_jax.errors import ConfigError
from qtts_jax.layers import kernels
from qtts_jax.layers.attention import Attention, attend
from qtts_jax.layers.rope import Rotation, rotate, rotation
from qtts_jax.modules.transformer import Block, Transformer

Remat = Literal["none", "blocks", "products"]
AttentionKernel = Literal["auto", "plain", "cudnn"]
Function = Callable[[jax.Array], jax.Array]


def run_stack(
    stack: Transformer,
    x: jax.Array,
    *,
    remat: Remat = "none",
    attention: AttentionKernel = "auto",
) -> jax.Array:
    """`stack(x)`, made for long sequences and gradients.

    Every position sees itself and all earlier ones, so right padding needs no mask: it changes
    nothing before it, and its own outputs are meaningless.

    Args:
        stack: without a window.
        x: [B, T, D].
        remat: what the backward pass computes again: "none"; whole "blocks" from their inputs,
            which keeps [B, T, D] a block; or everything but the results of matrix "products",
            which keeps about ten times that and saves most of the second forward pass.
        attention: "cudnn" needs an NVIDIA GPU and a 16-bit type; "plain" keeps scores of
            [B, H, T, T]; "auto" takes the first that can run.

    Raises:
        ConfigError: the stack has a window.
    """
    c = stack.config
    if c.window is not None:
        raise ConfigError("run_stack is for attention without a window; set window to None.")
    if attention == "auto":
        attention = kernels.sequence_backend(x.shape[1], x.dtype)
    turns = rotation(jnp.arange(x.shape[1])[None], c.head_dim, c.rope_theta)

    def run(block: Block, x: jax.Array) -> jax.Array:
        with jax.named_scope("attention"):
            y = _attention(block.attention, block.attention_norm(x), turns, attention)
            x = x + (y if block.attention_scale is None else block.attention_scale[...] * y)
        with jax.named_scope("ffn"):
            y = block.ffn(block.ffn_norm(x))
            return x + (y if block.ffn_scale is None else block.ffn_scale[...] * y)

    for i, block in enumerate(stack.layers):
        with jax.named_scope(f"layer_{i}"):
            x = _rematerialised(functools.partial(run, block), remat)(x)
    return x if stack.norm is None else stack.norm(x)


def _rematerialised(function: Function, remat: Remat) -> Function:
    if remat == "none":
        return function
    policies = jax.checkpoint_policies
    policy = None if remat == "blocks" else policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(function, policy=policy)


def _attention(
    layer: Attention, x: jax.Array, turns: Rotation, kernel: AttentionKernel
) -> jax.Array:
    """`Attention.step` from an empty cache: [B, T, D] -> [B, T, D]."""
    qkv = layer.qkv(x)
    q, k, v = qkv[..., :-2, :], qkv[..., -2, :], qkv[..., -1, :]
    if layer.q_norm is not None and layer.k_norm is not None:
        q, k = layer.q_norm(q), layer.k_norm(k)
    q, k = rotate(q, turns), rotate(k, turns)
    if kernel == "plain":
        steps = jnp.arange(x.shape[1])
        mask = jnp.broadcast_to(steps[:, None] >= steps, (x.shape[0], x.shape[1], x.shape[1]))
        return layer.out(attend(q, k, v, mask))
    # Query heads of one key/value head are neighbours here, as the fused call expects.
    heads = q.reshape(*q.shape[:2], -1, q.shape[-1])
    y = jax.nn.dot_product_attention(heads, k, v, is_causal=True, implementation="cudnn")
    return layer.out(y.reshape(q.shape))
