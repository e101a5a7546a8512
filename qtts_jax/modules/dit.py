"""Diffusion transformer with attention in blocks of frames (DiT, arXiv:2212.09748).

Time is cut into blocks. A frame attends to all frames of its own block and, in a few layers, to the
block before or after. So a block depends on a fixed number of other blocks, and a stream keeps keys
and values of one block in those layers only.

Every layer is conditioned on the time step by shift, scale and gate vectors. They do not depend on
the frames, so they are computed for all layers (and all time steps) in one product.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from qtts_jax.configs.tokenizer_25hz_decoder import DiTConfig
from qtts_jax.layers.attention import KeyValues
from qtts_jax.layers.linear import Linear
from qtts_jax.layers.rope import RopeAngles, apply_rope, rope_angles
from qtts_jax.layers.stream_position import Span, delay

# Fixed in the upstream classes `DiTTimestepEmbedding` and `AdaLayerNormZero`.
TIME_FEATURES, TIME_SCALE, TIME_PERIOD = 256, 1000.0, 10000.0
NORM_EPS = 1e-6


def time_features(times: np.ndarray) -> np.ndarray:
    """Sinusoids of the time steps, in the float32 arithmetic of the official code.

    Args:
        times: [N] float32 in [0, 1].

    Returns:
        [N, 256] float32: sines, then cosines.
    """
    angles = np.float32(TIME_SCALE) * times.astype(np.float32)[:, None] * time_frequencies()
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


def time_frequencies() -> np.ndarray:
    """Frequencies of the sinusoids of `time_features`, [128] float32."""
    half = TIME_FEATURES // 2
    slope = np.float32(-math.log(TIME_PERIOD) / (half - 1))
    frequencies: np.ndarray = np.exp(np.arange(half, dtype=np.float32) * slope)
    return frequencies


class Modulation(NamedTuple):
    """Conditioning vectors of one time step (or, with a leading axis, of several).

    Attributes:
        layers: [L, 6, D], per layer shift, scale and gate of the attention, then of the MLP.
        output: [2, D], scale and shift in front of the output projection.
    """

    layers: jax.Array
    output: jax.Array


def modulate(x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    """LayerNorm of x [..., D] without parameters, times 1 + scale, plus shift, in float32."""
    y = x.astype(jnp.float32)
    y = y - jnp.mean(y, axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + NORM_EPS)
    return (y * (1 + scale.astype(jnp.float32)) + shift.astype(jnp.float32)).astype(x.dtype)


def attend_blocks(
    q: jax.Array, keys: jax.Array, values: jax.Array, real: jax.Array, block: int
) -> jax.Array:
    """Softmax attention of every block of queries over a row of blocks of keys.

    Block n of N attends to blocks n ... n + w of the N + w blocks of keys; scores are float32.

    Args:
        q: [B, N * block, H, h], rotated.
        keys, values: [B, (N + w) * block, H, h].
        real: [B, (N + w) * block] bool, which keys exist.

    Returns:
        [B, N * block, H, h]. Undefined (but finite) for a query without keys.
    """

    def windows(x: jax.Array) -> jax.Array:
        x = rearrange(x, "b (n t) ... -> b n t ...", t=block)
        width = x.shape[1] - count + 1
        return jnp.concatenate([x[:, i : i + count] for i in range(width)], axis=2)

    count = q.shape[1] // block
    queries = rearrange(q, "b (n t) h d -> b n t h d", n=count)
    keys, values = windows(keys), windows(values)  # [B, N, (1 + w) * block, H, h]
    real = windows(real)  # [B, N, (1 + w) * block]
    scores = jnp.einsum("bnqhd,bnkhd->bnhqk", queries, keys, preferred_element_type=jnp.float32)
    scores = scores * q.shape[-1] ** -0.5  # [B, N, H, block, (1 + w) * block]
    scores = jnp.where(real[:, :, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    y = jnp.einsum("bnhqk,bnkhd->bnqhd", weights, values)
    return rearrange(y, "b n t h d -> b (n t) h d")


class LayerState(NamedTuple):
    """State of a layer between blocks; () where there is none.

    Attributes:
        seen: keys and values of the newest blocks that a later block attends to.
        waiting: input and queries of the blocks whose next block has not come yet.
    """

    seen: KeyValues | tuple[()]
    waiting: tuple[jax.Array, jax.Array] | tuple[()]


class DiTLayer(nnx.Module):
    """x + gate attention(modulated x), then x + gate mlp(modulated x) (`DiTDecoderLayer`).

    The projections of queries, keys and values are one matrix [3, H, 2, h/2, D]. The official code
    rotates neighbouring pairs of a head; the pairs are stored apart here (first members, then
    second), which is the layout of `layers/rope.py` and changes no product of query and key.
    """

    def __init__(self, c: DiTConfig, *, back: int, ahead: int, rngs: nnx.Rngs) -> None:
        self.back, self.ahead, self.block = back, ahead, c.block
        self.width, self.heads = c.width, (c.heads, c.head_dim)
        heads, axes = (c.heads, 2, c.head_dim // 2), ("heads", None, None)
        embed = ("embed",)
        self.qkv = Linear((c.width,), (3, *heads), embed, (None, *axes), bias=True, rngs=rngs)
        self.out = Linear(heads, (c.width,), axes, embed, bias=True, rngs=rngs)
        self.up = Linear((c.width,), (c.ffn_width,), embed, ("ffn",), bias=True, rngs=rngs)
        self.down = Linear((c.ffn_width,), (c.width,), ("ffn",), embed, bias=True, rngs=rngs)

    def init_state(self, batch: int, dtype: jnp.dtype, *, delayed: bool) -> LayerState:
        """The state before the first block; its zeros are masked by their position."""

        def zeros(blocks: int, *shape: int) -> jax.Array:
            return jnp.zeros((batch, blocks * self.block, *shape), dtype)

        late = self.ahead if delayed else 0
        kept = self.back + late
        return LayerState(
            KeyValues(zeros(kept, *self.heads), zeros(kept, *self.heads)) if kept else (),
            (zeros(late, self.width), zeros(late, *self.heads)) if late else (),
        )

    def step(
        self,
        x: jax.Array,
        modulation: jax.Array,
        rope: RopeAngles,
        real: jax.Array,
        state: LayerState,
        advance: int,
    ) -> tuple[jax.Array, LayerState]:
        """Consume N blocks.

        Args:
            x: [B, N * block, D].
            modulation: [6, D] or [B, 6, D].
            rope: angles of the N blocks.
            real: [B, (w + N) * block] bool, which of the w remembered and N new blocks exist.
            advance: blocks to keep in the state; the rest of the N are passed again in the next
                step.

        Returns:
            [B, N * block, D], late by `ahead` blocks if the state has `waiting`.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(
            modulation.reshape(-1, 6, self.width), 6, axis=1
        )
        with jax.named_scope("attention"):
            qkv = self.qkv(modulate(x, shift1, scale1))  # [B, T, 3, H, 2, h/2]
            qkv = rearrange(qkv, "b t three h pair half -> b t three h (pair half)")
            q, k = apply_rope(qkv[:, :, 0], rope), apply_rope(qkv[:, :, 1], rope)  # [B, T, H, h]
            line = KeyValues(k, qkv[:, :, 2])
            if state.seen:
                line = jax.tree.map(_append, KeyValues(*state.seen), line)
            waiting = state.waiting
            if waiting:
                x, old_x = delay(x, waiting[0])
                q, old_q = delay(q, waiting[1])
                waiting = (old_x, old_q)
            y = self._attend(q, line, real)  # [B, T, H, h]
            y = self.out(rearrange(y, "b t h (pair half) -> b t h pair half", pair=2))
            x = x + (gate1 * y).astype(x.dtype)  # [B, T, D]
        with jax.named_scope("mlp"):
            y = jax.nn.gelu(self.up(modulate(x, shift2, scale2)), approximate=True)  # [B, T, F]
            x = x + (gate2 * self.down(y)).astype(x.dtype)
        seen = state.seen
        if seen:
            start, kept = advance * self.block, seen[0].shape[1]
            seen = jax.tree.map(lambda t: t[:, start : start + kept], line)
        return x, LayerState(seen, waiting)

    def _attend(self, q: jax.Array, line: KeyValues, real: jax.Array) -> jax.Array:
        """`attend_blocks`, padded where the blocks before or after are missing."""
        blocks = q.shape[1] // self.block + self.back + self.ahead
        missing = blocks * self.block - real.shape[1]
        keys, values = line
        if missing:
            real = jnp.pad(real, ((0, 0), (0, missing)))
            filler = ((0, 0), (0, missing), (0, 0), (0, 0))
            keys, values = jnp.pad(keys, filler), jnp.pad(values, filler)
        return attend_blocks(q, keys, values, real, self.block)


def _append(old: jax.Array, new: jax.Array) -> jax.Array:
    return jnp.concatenate([old.astype(new.dtype), new], axis=1)


DiTState = tuple[LayerState, ...]


class DiT(nnx.Module):
    """Layers, final modulation and output projection (`Qwen3TTSTokenizerV1DecoderDiTModel`).

    One path has three uses: a step from a fresh state over all blocks computes a full sequence; a
    delayed step returns every block as soon as the blocks that it depends on have come; and a step
    that keeps only its first blocks in the state computes a window.
    """

    def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs) -> None:
        self.config = c = config
        width, embed = (c.width,), ("embed",)
        self.time_up = Linear((TIME_FEATURES,), width, (None,), embed, bias=True, rngs=rngs)
        self.time_down = Linear(width, width, embed, (None,), bias=True, rngs=rngs)
        self.modulation = Linear(
            width, (c.layers, 6, c.width), embed, (None, None, None), bias=True, rngs=rngs
        )
        self.output_modulation = Linear(
            width, (2, c.width), embed, (None, None), bias=True, rngs=rngs
        )
        self.layers = nnx.List(
            DiTLayer(c, back=c.looks_back(i), ahead=c.looks_ahead(i), rngs=rngs)
            for i in range(c.layers)
        )
        self.output = Linear(width, (c.n_mels,), embed, (None,), bias=True, rngs=rngs)

    @property
    def ahead(self) -> int:
        """Blocks after its own that a block's result depends on."""
        return sum(layer.ahead for layer in self.layers)

    def modulations(self, features: jax.Array) -> Modulation:
        """Vectors of all layers for time features [N, 256], each with a leading N."""
        x = features.astype(self.time_up.kernel[...].dtype)
        x = jax.nn.silu(self.time_down(jax.nn.silu(self.time_up(x))))
        return Modulation(self.modulation(x), self.output_modulation(x))

    def init_state(self, batch: int, dtype: jnp.dtype, *, delayed: bool) -> DiTState:
        """The state before the first block.

        Args:
            delayed: whether layers with look-ahead wait for the next block, or attend only to
                blocks of the same step.
        """
        return tuple(layer.init_state(batch, dtype, delayed=delayed) for layer in self.layers)

    def step(
        self,
        x: jax.Array,
        modulation: Modulation,
        state: DiTState,
        span: Span,
        advance: int | None = None,
    ) -> tuple[jax.Array, DiTState]:
        """Consume N blocks.

        Args:
            x: [B, N * block, D] at `span`, which begins at a multiple of the block.
            advance: how many of the N blocks enter the memory; None for all.

        Returns:
            [B, N * block, M], late by `ahead` blocks if the state is a delayed one.
        """
        block = self.config.block
        advance = x.shape[1] // block if advance is None else advance
        rope: dict[int, RopeAngles] = {}
        late = 0
        after = []
        for i, (layer, old) in enumerate(zip(self.layers, state, strict=True)):
            if late not in rope:
                index = span.delayed(late).indices(x.shape[1])
                rope[late] = rope_angles(index, self.config.head_dim, self.config.rope_theta)
            kept = old.seen[0].shape[1] if old.seen else 0
            real = span.delayed(late + kept).inside(kept + x.shape[1])
            with jax.named_scope(f"layer_{i}"):
                x, new = layer.step(x, modulation.layers[i], rope[late], real, old, advance)
            if old.waiting:
                late += layer.ahead * block
            after.append(new)
        scale, shift = modulation.output[0], modulation.output[1]
        return self.output(modulate(x, shift, scale)), tuple(after)
