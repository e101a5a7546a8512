"""The transformer block of Whisper's encoder (arXiv:2212.04356), over independent windows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qtts_jax.layers.attention import attend
from qtts_jax.layers.linear import Linear
from qtts_jax.layers.norm import LayerNorm
from qtts_jax.layers.param import constant, param

NORM_EPS = 1e-5
FFN_MULT = 4


def sinusoids(length: int, width: int) -> np.ndarray:
    """Whisper's table of positions, float32 [length, width]: sines, then cosines.

    Frequency i of width / 2 is 10000 ** (-i / (width / 2 - 1)).
    """
    half = width // 2
    step = np.log(10000) / (half - 1)
    frequency = np.exp((-step * np.arange(half)).astype(np.float32))
    phase = np.arange(length, dtype=np.float32)[:, None] * frequency
    return np.concatenate([np.sin(phase), np.cos(phase)], axis=1)


class WindowAttention(nnx.Module):
    """Self-attention without positions inside each window (upstream `MultiHeadAttention`).

    Query, key and value projections are one matrix [3, H, h, D]; keys have no bias.
    """

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        head = width // heads
        axes = ("heads", None)
        self.qkv = Linear((width,), (3, heads, head), ("embed",), (None, *axes), rngs=rngs)
        self.q_bias, self.v_bias = (
            param(rngs, (heads, head), axes, constant(0.0)) for _ in range(2)
        )
        self.out = Linear((heads, head), (width,), axes, ("embed",), bias=True, rngs=rngs)

    def __call__(self, x: jax.Array, lengths: jax.Array, attended: jax.Array) -> jax.Array:
        """Attend inside windows.

        Args:
            x: [R, T, D], one window a row.
            lengths: [R], real steps of each window.
            attended: [R], slots whose keys take part, at least `lengths`; those behind the end
                of a window have zero keys and values, so they only lower the weights of the rest.

        Returns:
            [R, T, D], undefined behind the end of a window.
        """
        qkv = self.qkv(x)  # [R, T, 3, H, h]
        q = qkv[..., 0, :, :] + self.q_bias[...]  # [R, T, H, h]
        k, v = qkv[..., 1, :, :], qkv[..., 2, :, :] + self.v_bias[...]
        slots = jnp.arange(x.shape[1])
        real = (slots < lengths[:, None])[..., None, None]
        k, v = jnp.where(real, k, 0), jnp.where(real, v, 0)
        mask = slots < attended[:, None]  # [R, T]
        y = attend(q[..., None, :], k, v, mask[:, None])  # [R, T, H, 1, h]
        return self.out(y[..., 0, :])


class WhisperBlock(nnx.Module):
    """Pre-norm attention and feed-forward with exact GELU (upstream `ResidualAttentionBlock`)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        ffn = FFN_MULT * width
        self.attention_norm = LayerNorm(width, NORM_EPS, rngs=rngs)
        self.attention = WindowAttention(width, heads, rngs=rngs)
        self.ffn_norm = LayerNorm(width, NORM_EPS, rngs=rngs)
        self.up = Linear((width,), (ffn,), ("embed",), ("ffn",), bias=True, rngs=rngs)
        self.down = Linear((ffn,), (width,), ("ffn",), ("embed",), bias=True, rngs=rngs)

    def __call__(self, x: jax.Array, lengths: jax.Array, attended: jax.Array) -> jax.Array:
        """As `WindowAttention`."""
        x = x + self.attention(self.attention_norm(x), lengths, attended)
        return x + self.down(jax.nn.gelu(self.up(self.ffn_norm(x)), approximate=False))
