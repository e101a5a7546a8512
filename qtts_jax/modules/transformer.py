"""The pre-norm transformer of talker, code predictor and both tokenizer halves."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tts import TransformerConfig
from qtts_jax.layers import dispatch
from qtts_jax.layers.attention import Attention, AttentionContext, KeyValues, attention_context
from qtts_jax.layers.ffn import GeluFFN, SwiGLU
from qtts_jax.layers.kernels.decode_attention import attention
from qtts_jax.layers.kernels.matvec import matvec_add, norm_gate_up, norm_matvec
from qtts_jax.layers.norm import LayerNorm, RMSNorm
from qtts_jax.layers.param import constant, param
from qtts_jax.layers.quantized_weights import matrix
from qtts_jax.layers.rope import RopeAngles, rope_angles

Memory = TypeVar("Memory")


def make_norm(c: TransformerConfig, *, rngs: nnx.Rngs) -> RMSNorm | LayerNorm:
    """RMSNorm or LayerNorm, as configured."""
    return (RMSNorm if c.norm == "rms" else LayerNorm)(c.width, c.norm_eps, rngs=rngs)


class Block(nnx.Module):
    """x + attention(norm(x)), then x + ffn(norm(x)), each branch optionally scaled per channel."""

    def __init__(self, c: TransformerConfig, *, rngs: nnx.Rngs) -> None:
        self.attention_norm = make_norm(c, rngs=rngs)
        self.attention = Attention(c, rngs=rngs)
        self.ffn_norm = make_norm(c, rngs=rngs)
        self.ffn = (SwiGLU if c.ffn == "swiglu" else GeluFFN)(c, rngs=rngs)
        self.attention_scale, self.ffn_scale = (
            None
            if c.layer_scale is None
            else param(rngs, (c.width,), ("embed",), constant(c.layer_scale))
            for _ in range(2)
        )

    def __call__(
        self, x: jax.Array, attend: Callable[[jax.Array], tuple[jax.Array, Memory]]
    ) -> tuple[jax.Array, Memory]:
        """The residual formula; the caller chooses how the attention runs.

        Args:
            x: [B, T, D].
            attend: normalized x [B, T, D] -> (attention output [B, T, D], what it leaves for the
                caller, such as a cache).

        Returns:
            [B, T, D] and what `attend` left.
        """
        with jax.named_scope("attention"):
            y, memory = attend(self.attention_norm(x))  # [B, T, D]
            x = x + (y if self.attention_scale is None else self.attention_scale[...] * y)
        with jax.named_scope("ffn"):
            y = self.ffn(self.ffn_norm(x))  # [B, T, D]
            x = x + (y if self.ffn_scale is None else self.ffn_scale[...] * y)
        return x, memory

    def step(
        self, x: jax.Array, state: KeyValues, context: AttentionContext
    ) -> tuple[jax.Array, KeyValues]:
        """x [B, T, D] -> (y [B, T, D], state)."""
        return self(x, lambda y: self.attention.step(y, state, context))

    def decode(
        self, x: jax.Array, state: KeyValues, rope: RopeAngles, position: jax.Array
    ) -> tuple[jax.Array, KeyValues]:
        """`step` over one position per row by the fused kernels of `layers/kernels`.

        Norms and residual sums are inside the kernels, so the formula of `__call__` is fused into
        them: `norm_matvec` and `norm_gate_up` start a branch, `matvec_add` adds it to x.

        Args:
            x: [B, D].
            rope: angles of the new positions, [B, 1, h/2].
            position: [B], how many positions each row has seen.

        Returns:
            [B, D] and the state.
        """
        mix, ffn = self.attention, self.ffn
        assert isinstance(ffn, SwiGLU)
        (batch, width), eps = x.shape, self.attention_norm.eps
        backend, product = dispatch.decode_backend(batch, 1), dispatch.matvec_backend(batch)
        qkv, out = mix.qkv.kernel[...], mix.out.kernel[...]
        with jax.named_scope("attention"):
            scale = self.attention_norm.scale[...]
            y = norm_matvec(x, scale, matrix(qkv, width), eps, backend=product)
            y = y.reshape(batch, *qkv.shape[:-1])  # [B, K, G+2, h]
            q_scale, k_scale = (
                None if norm is None else norm.scale[...] for norm in (mix.q_norm, mix.k_norm)
            )
            keys, values = state
            y, keys, values = attention(
                y, q_scale, k_scale, rope, keys, values, position, eps, backend=backend
            )
            y = y.reshape(batch, -1)  # [B, K G h]
            x = matvec_add(y, matrix(out, y.shape[1]), x, backend=product)  # [B, D]
        with jax.named_scope("ffn"):
            gate_up, down = ffn.gate_up.kernel[...], ffn.down.kernel[...]
            y = norm_gate_up(x, self.ffn_norm.scale[...], gate_up, eps, backend=product)  # [B, F]
            return matvec_add(y, down, x, backend=product), KeyValues(keys, values)


class TransformerState(NamedTuple):
    """State of a stack.

    Attributes:
        layers: caches.
        position: [B] int32, how many positions each row has seen; [1] where all have seen as many.
    """

    layers: tuple[KeyValues, ...]
    position: jax.Array


class Transformer(nnx.Module):
    """A stack of blocks, with a final norm or (Mimi's encoder) without."""

    def __init__(self, c: TransformerConfig, *, final_norm: bool = True, rngs: nnx.Rngs) -> None:
        self.config = c
        self.layers = nnx.List([Block(c, rngs=rngs) for _ in range(c.layers)])
        self.norm = make_norm(c, rngs=rngs) if final_norm else None

    def init_state(
        self, batch: int, dtype: jnp.dtype, capacity: int | None = None
    ) -> TransformerState:
        """The state before the first position.

        Args:
            capacity: positions kept. With a window it defaults to window - 1, all that is attended
                to; without, it must be given and bounds the length of the sequence.
        """
        if capacity is None:
            if self.config.window is None:
                raise AssertionError("attention without a window needs a capacity")
            capacity = self.config.window - 1
        layers = tuple(layer.attention.init_state(batch, dtype, capacity) for layer in self.layers)
        return TransformerState(layers, jnp.zeros((batch,), jnp.int32))

    def step(
        self, x: jax.Array, state: TransformerState, lengths: jax.Array | None = None
    ) -> tuple[jax.Array, TransformerState]:
        """Consume T positions.

        Args:
            x: [B, T, D].
            lengths: [B], number of real positions in each row (right padding); the
                rest give undefined outputs and do not enter a cache without a window. None
                for all.

        Returns:
            [B, T, D] and the new state.
        """
        x, state = self.step_blocks(x, state, lengths)
        return (x if self.norm is None else self.norm(x)), state

    def step_blocks(
        self, x: jax.Array, state: TransformerState, lengths: jax.Array | None = None
    ) -> tuple[jax.Array, TransformerState]:
        """As `step`, without the final norm."""
        single = lengths is None and x.shape[1] == 1 and self._has_kernels()
        if single and dispatch.decode_backend(*x.shape[:2]) != "plain":
            return self._decode(x, state)
        capacity = state.layers[0].keys.shape[1]
        context = attention_context(self.config, state.position, x.shape[1], capacity, lengths)
        layers = []
        for i, (layer, layer_state) in enumerate(zip(self.layers, state.layers, strict=True)):
            with jax.named_scope(f"layer_{i}"):
                x, layer_state = layer.step(x, layer_state, context)
            layers.append(layer_state)
        advance = x.shape[1] if lengths is None else lengths
        return x, TransformerState(tuple(layers), state.position + advance)

    def _has_kernels(self) -> bool:
        """Whether the decoding kernels implement this kind of block (the language models')."""
        c = self.config
        supported = c.norm == "rms" and c.ffn == "swiglu" and c.layer_scale is None
        return supported and c.window is None and c.head_dim & (c.head_dim - 1) == 0

    def _decode(self, x: jax.Array, state: TransformerState) -> tuple[jax.Array, TransformerState]:
        """One position per row by the decoding kernels: x [B, 1, D]."""
        position = jnp.broadcast_to(state.position, x.shape[:1])  # [B]
        rope = rope_angles(position[:, None], self.config.head_dim, self.config.rope_theta)
        y, layers = x[:, 0], []  # [B, D]
        for i, (layer, cache) in enumerate(zip(self.layers, state.layers, strict=True)):
            with jax.named_scope(f"layer_{i}"):
                y, cache = layer.decode(y, cache, rope, position)
            layers.append(cache)
        return y[:, None], TransformerState(tuple(layers), state.position + 1)

    def __call__(self, x: jax.Array) -> jax.Array:
        """A full sequence [B, T, D] from a fresh state."""
        # Nothing precedes the input, so a windowed stack needs no slots for earlier keys.
        capacity = x.shape[1] if self.config.window is None else 0
        return self.step(x, self.init_state(x.shape[0], x.dtype, capacity))[0]
