"""Whisper's text decoder (arXiv:2212.04356, section 2.2), the head of the ASR loss.

It serves to train the codebook and is no part of a tokenizer.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.layers.attention import attend
from qtts_jax.layers.linear import Embedding, Linear
from qtts_jax.layers.norm import LayerNorm
from qtts_jax.modules.whisper_block import FFN_MULT, NORM_EPS, sinusoids
from qtts_jax.training.tokenizer_25hz.config import HeadsConfig

# Whisper starts its token table at this deviation.
TOKEN_STD = 0.02


class MaskedAttention(nnx.Module):
    """Attention of queries from x to keys and values from a memory, without positions.

    Upstream: `MultiHeadAttention` of Whisper; keys have no bias.
    """

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        shape, axes, embed = (heads, width // heads), ("heads", None), ("embed",)
        self.query = Linear((width,), shape, embed, axes, bias=True, rngs=rngs)
        self.key = Linear((width,), shape, embed, axes, rngs=rngs)
        self.value = Linear((width,), shape, embed, axes, bias=True, rngs=rngs)
        self.out = Linear(shape, (width,), axes, embed, bias=True, rngs=rngs)

    def __call__(self, x: jax.Array, memory: jax.Array, mask: jax.Array) -> jax.Array:
        """x [B, T, D], memory [B, S, D], mask [B, T, S] bool -> [B, T, D]."""
        q = self.query(x)[..., None, :]  # [B, T, H, 1, h]
        y = attend(q, self.key(memory), self.value(memory), mask)  # [B, T, H, 1, h]
        return self.out(y[..., 0, :])


class TextDecoderBlock(nnx.Module):
    """Pre-norm causal self-attention, attention to the speech, feed-forward with exact GELU."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        ffn = FFN_MULT * width
        self.self_norm, self.speech_norm, self.ffn_norm = (
            LayerNorm(width, NORM_EPS, rngs=rngs) for _ in range(3)
        )
        self.self_attention = MaskedAttention(width, heads, rngs=rngs)
        self.speech_attention = MaskedAttention(width, heads, rngs=rngs)
        self.up = Linear((width,), (ffn,), ("embed",), ("ffn",), bias=True, rngs=rngs)
        self.down = Linear((ffn,), (width,), ("ffn",), ("embed",), bias=True, rngs=rngs)

    def __call__(
        self, x: jax.Array, speech: jax.Array, causal: jax.Array, real: jax.Array
    ) -> jax.Array:
        """x [B, L, D], speech [B, S, D], causal [B, L, L], real [B, L, S] -> [B, L, D]."""
        y = self.self_norm(x)
        x = x + self.self_attention(y, y, causal)
        x = x + self.speech_attention(self.speech_norm(x), speech, real)
        return x + self.down(jax.nn.gelu(self.up(self.ffn_norm(x)), approximate=False))


class TextDecoder(nnx.Module):
    """Logits of every next text id, given the ids before it and continuous speech vectors.

    Positions of ids and of speech are sinusoids, since windows of the encoder do not depend on
    their place in the recording. The token table is also the output projection, as in Whisper.

    Args:
        config: sizes.
        speech_width: of the encoder's continuous output.
    """

    def __init__(self, config: HeadsConfig, speech_width: int, *, rngs: nnx.Rngs) -> None:
        c, width = config, config.text_width
        self.width = width
        self.tokens = Embedding(c.vocab_size, width, std=TOKEN_STD, rngs=rngs)
        self.speech = Linear((speech_width,), (width,), (None,), ("embed",), bias=True, rngs=rngs)
        self.layers = nnx.List(
            TextDecoderBlock(width, c.text_heads, rngs=rngs) for _ in range(c.text_layers)
        )
        self.norm = LayerNorm(width, NORM_EPS, rngs=rngs)

    def __call__(self, ids: jax.Array, speech: jax.Array, steps: jax.Array) -> jax.Array:
        """Teacher-forced logits.

        Args:
            ids: [B, L] int, what stands in front of every target.
            speech: [B, S, O].
            steps: [B], real vectors of each row.

        Returns:
            float32 [B, L, V].
        """
        length, time = ids.shape[1], speech.shape[1]
        x = self.tokens(ids)
        x = x + jnp.asarray(sinusoids(length, self.width), x.dtype)  # [B, L, D]
        speech = self.speech(speech)
        speech = speech + jnp.asarray(sinusoids(time, self.width), x.dtype)  # [B, S, D]
        real = jnp.arange(time) < steps[:, None]  # [B, S]
        # Vectors behind the end are undefined, and a weight of 0 times NaN is NaN.
        speech = jnp.where(real[..., None], speech, 0)
        order = jnp.arange(length)
        causal = jnp.broadcast_to(order <= order[:, None], (ids.shape[0], length, length))
        seen = jnp.broadcast_to(real[:, None], (ids.shape[0], length, time))
        for block in self.layers:
            with jax.named_scope("text_block"):
                x = block(x, speech, causal, seen)
        table = self.tokens.table[...]
        return jnp.einsum("bld,vd->blv", self.norm(x), table, preferred_element_type=jnp.float32)
