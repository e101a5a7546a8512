"""The dual-track talker: text and codec embeddings are summed position by position."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tts import TalkerConfig
from qtts_jax.layers import dispatch
from qtts_jax.layers.kernels.matvec import norm_matvec
from qtts_jax.layers.linear import Embedding, Linear
from qtts_jax.layers.param import normal
from qtts_jax.layers.streamed_weights import Streamed, plain
from qtts_jax.models import talker_kernel
from qtts_jax.modules.transformer import Transformer, TransformerState


class TextProjection(nnx.Module):
    """Text width to talker width: Linear, SiLU, Linear (upstream `Qwen3TTSTalkerResizeMLP`)."""

    def __init__(self, c: TalkerConfig, *, rngs: nnx.Rngs) -> None:
        text, width, init = c.text_width, c.transformer.width, normal(c.transformer.init_std)
        self.up = Linear((text,), (text,), (None,), ("ffn",), bias=True, init=init, rngs=rngs)
        self.down = Linear((text,), (width,), ("ffn",), ("embed",), bias=True, init=init, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., text width] -> [..., D]."""
        return self.down(jax.nn.silu(self.up(x)))


class Talker(nnx.Module):
    """Predicts codebook 0 of the next frame (upstream `Qwen3TTSTalkerForConditionalGeneration`).

    Input and output are split into `embed_text`, `embed_codec`, `step` and `logits`, so that
    prompt building, decoding and training combine the same parts.
    """

    def __init__(self, c: TalkerConfig, *, rngs: nnx.Rngs) -> None:
        self.config = c
        width, std = c.transformer.width, c.transformer.init_std
        self.text_embedding = Embedding(c.text_vocab_size, c.text_width, std=std, rngs=rngs)
        self.text_projection = TextProjection(c, rngs=rngs)
        self.codec_embedding = Embedding(
            c.vocab_size, width, std=std, axis="codec_vocab", rngs=rngs
        )
        self.transformer = Transformer(c.transformer, rngs=rngs)
        self.codec_head = Linear(
            (width,), (c.vocab_size,), ("embed",), ("codec_vocab",), init=normal(std), rngs=rngs
        )

    def embed_text(self, ids: jax.Array) -> jax.Array:
        """Text track: ids [...] int -> [..., D]; -1 gives zeros (no text at this position)."""
        present = (ids >= 0)[..., None]  # [..., 1]
        # The two projections cost far more than the gather, so rows without text are masked after.
        return jnp.where(present, self.text_projection(self.text_embedding(jnp.maximum(ids, 0))), 0)

    def embed_codec(self, ids: jax.Array) -> jax.Array:
        """Codec track, codebook 0 and special ids: [...] int -> [..., D]; -1 gives zeros."""
        return jnp.where((ids >= 0)[..., None], self.codec_embedding(jnp.maximum(ids, 0)), 0)

    def init_state(self, batch: int, dtype: jnp.dtype, capacity: int) -> TransformerState:
        """An empty cache for sequences of up to `capacity` positions."""
        return self.transformer.init_state(batch, dtype, capacity)

    def step(
        self, x: jax.Array, state: TransformerState, lengths: jax.Array | None = None
    ) -> tuple[jax.Array, TransformerState]:
        """Embedded inputs [B, T, D] -> hidden states after the final norm [B, T, D]."""
        head, norm = self.codec_head.kernel[...], self.transformer.norm
        one = lengths is None and x.shape[:2] == (1, 1)
        if one and isinstance(head, Streamed) and dispatch.persistent_kernels():
            assert norm is not None
            c = self.config.transformer
            y, state = talker_kernel.step(c, head.stream, x[0], state)  # [1, D]
            return norm(y).astype(x.dtype)[None], state
        return self.transformer.step(x, state, lengths)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Hidden [..., D] -> float32 logits over the codec vocabulary [..., V]."""
        width = hidden.shape[-1]
        flat = hidden.reshape(-1, width)  # [N, D]
        kernel = plain(self.codec_head.kernel[...])  # [V, D]
        backend = dispatch.matvec_backend(flat.shape[0])
        y: jax.Array = norm_matvec(flat, None, kernel, 0.0, backend=backend)
        return y.astype(jnp.float32).reshape(*hidden.shape[:-1], -1)
