"""Causal grouped-query attention over a window of earlier keys or over a fixed-size cache.

The positions, the mask and the rotation are the same in every layer of a stack, so the stack
computes them once (`attention_context`) and each layer gets them explicitly.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tts import TransformerConfig
from qtts_jax.layers.linear import Linear
from qtts_jax.layers.norm import RMSNorm
from qtts_jax.layers.param import normal
from qtts_jax.layers.rope import RopeAngles, rotate, rotation


class KeyValues(NamedTuple):
    """Keys and values of one layer, each [B, S, K, h].

    With a window, the S = window - 1 newest positions, newest last. Without, slot s holds
    position s and S is the capacity.
    """

    keys: jax.Array
    values: jax.Array


class AttentionContext(NamedTuple):
    """What all layers of a stack share in one step.

    Attributes:
        rotation: cos and sin of the T new positions.
        mask: [B, T, S'] bool, True where a query may look (S' = S + T with a window, else S).
        position: [B] int, positions already in the cache of each row.
        real: [B, T] bool, False for right padding; None when there is none.
    """

    rotation: RopeAngles
    mask: jax.Array
    position: jax.Array
    real: jax.Array | None


def attention_context(
    config: TransformerConfig,
    position: jax.Array,
    steps: int,
    slots: int,
    lengths: jax.Array | None,
) -> AttentionContext:
    """Positions, mask and rotation for `steps` new positions of rows that hold `position` [B].

    Args:
        slots: S of the state.
        lengths: [B] how many of the new positions are real; None for all.
    """
    new = position[:, None] + jnp.arange(steps)
    if config.window is None:
        keys = jnp.broadcast_to(jnp.arange(slots), (position.shape[0], slots))
    else:
        keys = position[:, None] - slots + jnp.arange(slots + steps)
    mask = (keys[:, None, :] <= new[:, :, None]) & (keys[:, None, :] >= 0)
    if config.window is not None:
        mask &= keys[:, None, :] > new[:, :, None] - config.window
    real = None if lengths is None else jnp.arange(steps) < lengths[:, None]
    turns = rotation(new, config.head_dim, config.rope_theta)
    return AttentionContext(turns, mask, position, real)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Softmax attention with float32 scores.

    Args:
        q: [B, T, K, G, h], already rotated.
        k, v: [B, S, K, h].
        mask: [B, T, S] bool.

    Returns:
        [B, T, K, G, h].
    """
    scores = jnp.einsum("btkgh,bskh->bkgts", q, k, preferred_element_type=jnp.float32)
    scores = scores * (q.shape[-1] ** -0.5)
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, v)


class Attention(nnx.Module):
    """Self-attention with rotary positions (upstream `Qwen3TTSAttention`, `MimiAttention`).

    Query, key and value projections are one matrix [K, G+2, h, D]: per key/value head its G
    query heads, then its key, then its value. One product instead of three, and sharding over K
    keeps each group of heads on one device.
    """

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        c, init = config, normal(config.init_std)
        heads = (c.kv_heads, c.heads // c.kv_heads + 2, c.head_dim)
        axes = ("heads", None, None)
        self.qkv = Linear((c.width,), heads, ("embed",), axes, init=init, rngs=rngs)
        heads = (c.kv_heads, c.heads // c.kv_heads, c.head_dim)
        self.out = Linear(heads, (c.width,), axes, ("embed",), init=init, rngs=rngs)
        self.q_norm, self.k_norm = (
            RMSNorm(c.head_dim, c.norm_eps, axis="head_dim", rngs=rngs) if c.qk_norm else None
            for _ in range(2)
        )

    def init_state(self, batch: int, dtype: jnp.dtype, slots: int) -> KeyValues:
        """An empty cache of `slots` positions."""
        shape = (batch, slots, self.config.kv_heads, self.config.head_dim)
        return KeyValues(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    def step(
        self, x: jax.Array, state: KeyValues, shared: AttentionContext
    ) -> tuple[jax.Array, KeyValues]:
        """x [B, T, D] -> (y [B, T, D], state)."""
        qkv = self.qkv(x)
        q, k, v = qkv[..., :-2, :], qkv[..., -2, :], qkv[..., -1, :]
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q, shared.rotation), rotate(k, shared.rotation)
        if shared.real is not None:
            # Padding must not enter the cache: a masked weight of 0 times NaN is still NaN.
            k, v = (jnp.where(shared.real[:, :, None, None], t, 0) for t in (k, v))
        if self.config.window is None:
            seen = KeyValues(
                write(state.keys, k, shared.position), write(state.values, v, shared.position)
            )
            state = seen
        else:
            seen = KeyValues(
                jnp.concatenate([state.keys, k], axis=1),
                jnp.concatenate([state.values, v], axis=1),
            )
            state = jax.tree.map(lambda t: t[:, x.shape[1] :], seen)
        return self.out(attend(q, seen.keys, seen.values, shared.mask)), state


def write(cache: jax.Array, new: jax.Array, position: jax.Array) -> jax.Array:
    """Put new [B, T, K, h] into cache [B, S, K, h] at each row's own position [B]."""
    new = new.astype(cache.dtype)
    return jax.vmap(lambda c, n, p: jax.lax.dynamic_update_slice_in_dim(c, n, p, axis=0))(
        cache, new, position
    )
