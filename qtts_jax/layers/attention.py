"""Causal grouped-query attention over a window of earlier keys or over a fixed-size cache.

Positions, mask and rope angles are the same in every layer of a stack, so the stack computes them
once (`attention_context`) and passes them to each layer.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tts import TransformerConfig
from qtts_jax.layers import dispatch
from qtts_jax.layers.kernels.cache_write import write_rows
from qtts_jax.layers.linear import Linear
from qtts_jax.layers.norm import RMSNorm, rms_norm, rms_norm_by_product
from qtts_jax.layers.param import normal
from qtts_jax.layers.rope import RopeAngles, apply_rope, apply_rope_by_product, rope_angles


class KeyValues(NamedTuple):
    """Keys and values of one layer, each [B, S, K, h].

    With a window, the S = window - 1 newest positions, newest last. Without, slot s holds
    position s and S is the capacity.
    """

    keys: jax.Array
    values: jax.Array


class AttentionContext(NamedTuple):
    """Positions and mask that all layers of a stack share in one step.

    Attributes:
        rope: cos and sin of the T new positions.
        mask: [B, T, S'] bool, True where a query may look (S' = S + T with a window, else S).
        position: [B] int, positions already in the cache of each row; [1] where all rows have the
            same, and then rope and mask have one row, too.
        real: [B, T] bool, False for right padding; None when there is none.
    """

    rope: RopeAngles
    mask: jax.Array
    position: jax.Array
    real: jax.Array | None


def attention_context(
    config: TransformerConfig,
    position: jax.Array,
    time: int,
    capacity: int,
    lengths: jax.Array | None,
) -> AttentionContext:
    """Positions, mask and rope angles of `time` new positions per row.

    Args:
        position: [B] int, positions already in the cache of each row, or [1] of all.
        time: T, the new positions.
        capacity: S of the state.
        lengths: [B] how many of the new positions are real; None for all.
    """
    new = position[:, None] + jnp.arange(time)  # [B, T]
    if config.window is None:
        keys = jnp.broadcast_to(jnp.arange(capacity), (position.shape[0], capacity))  # [B, S]
    else:
        keys = position[:, None] - capacity + jnp.arange(capacity + time)  # [B, S + T]
    mask = (keys[:, None, :] <= new[:, :, None]) & (keys[:, None, :] >= 0)  # [B, T, S']
    if config.window is not None:
        mask &= keys[:, None, :] > new[:, :, None] - config.window
    real = None if lengths is None else jnp.arange(time) < lengths[:, None]
    rope = rope_angles(new, config.head_dim, config.rope_theta)
    return AttentionContext(rope, mask, position, real)


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
    scores = scores * (q.shape[-1] ** -0.5)  # [B, K, G, T, S]
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, v)


def attend_together(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """`attend` with the queries of all heads in one product with the keys of all heads.

    A query of another head than a key is masked, so these scores are wasted. But keys and values
    are read as they lie in the cache, and a matrix unit takes as long for the few queries of one
    head as for those of all.
    """
    batch, _, heads, groups, width = q.shape
    queries = q.reshape(batch, -1, width)  # [B, T K G, h]
    k, v = (t.reshape(batch, -1, width) for t in (k, v))  # [B, S K, h]
    scores = jnp.einsum("bqh,bsh->bqs", queries, k, preferred_element_type=jnp.float32)
    scores = scores * (width**-0.5)  # [B, T K G, S K]
    own = jnp.arange(queries.shape[1])[:, None] // groups % heads == jnp.arange(k.shape[1]) % heads
    seen = jnp.repeat(jnp.repeat(mask, heads, axis=2), heads * groups, axis=1)
    scores = jnp.where(seen & own, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bqs,bsh->bqh", weights, v).reshape(q.shape)


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

    def init_state(self, batch: int, dtype: jnp.dtype, capacity: int) -> KeyValues:
        """An empty cache of `capacity` positions."""
        shape = (batch, capacity, self.config.kv_heads, self.config.head_dim)
        return KeyValues(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    def step(
        self, x: jax.Array, state: KeyValues, context: AttentionContext
    ) -> tuple[jax.Array, KeyValues]:
        """x [B, T, D] -> (y [B, T, D], state)."""
        qkv = self.qkv(x)  # [B, T, K, G+2, h]
        q = qkv[..., :-2, :]  # [B, T, K, G, h]
        k, v = qkv[..., -2, :], qkv[..., -1, :]  # [B, T, K, h]
        by_product = dispatch.heads_by_products(x.shape[1], x.dtype)
        normalize = rms_norm_by_product if by_product else rms_norm
        rotate = apply_rope_by_product if by_product else apply_rope
        if self.q_norm is not None and self.k_norm is not None:
            q = normalize(q, self.q_norm.scale[...], self.q_norm.eps)
            k = normalize(k, self.k_norm.scale[...], self.k_norm.eps)
        q, k = rotate(q, context.rope), rotate(k, context.rope)
        if context.real is not None:
            # Padding must not enter the cache: a masked weight of 0 times NaN is still NaN.
            k, v = (jnp.where(context.real[:, :, None, None], t, 0) for t in (k, v))
        if self.config.window is None:
            seen = state = write_both(state, k, v, context.position)  # [B, S, K, h]
        else:
            seen = KeyValues(
                jnp.concatenate([state.keys, k], axis=1),
                jnp.concatenate([state.values, v], axis=1),
            )
            state = jax.tree.map(lambda t: t[:, x.shape[1] :], seen)  # newest S of S + T
        slots, heads = seen.keys.shape[1:3]
        scores = q.size // q.shape[-1] * slots * heads  # of all pairs of heads
        together = self.config.window is None and dispatch.heads_in_one_product(x.shape[1], scores)
        mix = attend_together if together else attend
        y = mix(q, seen.keys, seen.values, context.mask)  # [B, T, K, G, h]
        return self.out(y), state


def write_both(state: KeyValues, k: jax.Array, v: jax.Array, position: jax.Array) -> KeyValues:
    """`write` new keys and values [B, T, K, h]."""
    form = dispatch.cache_write(*k.shape[1:])
    if len(position) == len(k) and form in ("rows", "interpret"):
        k, v = (t[:, 0].astype(state.keys.dtype) for t in (k, v))  # [B, K, h]
        interpret = form == "interpret"
        return KeyValues(*write_rows(*state, k, v, position, interpret=interpret))
    return KeyValues(write(state.keys, k, position), write(state.values, v, position))


def write(cache: jax.Array, new: jax.Array, position: jax.Array) -> jax.Array:
    """Put new [B, T, K, h] into cache [B, S, K, h] at each row's own position [B], or all at [1].

    A position beyond the cache, which only rows that have ended reach, overwrites its end or (by
    selection or kernel) nothing.
    """
    new = new.astype(cache.dtype)
    if len(position) == 1:
        return jax.lax.dynamic_update_slice_in_dim(cache, new, position[0], axis=1)
    if dispatch.cache_write(*new.shape[1:]) != "plain":
        slot = jnp.arange(cache.shape[1]) - position[:, None]  # [B, S]
        for t in range(new.shape[1]):
            cache = jnp.where((slot == t)[..., None, None], new[:, t : t + 1], cache)
        return cache
    return jax.vmap(lambda c, n, p: jax.lax.dynamic_update_slice_in_dim(c, n, p, axis=0))(
        cache, new, position
    )
