"""Convolutional mel decoder, the head of the mel loss in the second stage of encoder training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.layers.conv import Conv, ConvTranspose
from qtts_jax.layers.linear import Linear

KERNEL = 5


class MelDecoder(nnx.Module):
    """Predicts the log-mel frames that the encoder reads from its dequantized vectors.

    Residual centred convolutions at the rate of codes, upsampling to the rate of frames, and as
    many convolutions there (the report of Qwen3-TTS, arXiv:2601.15621, names a convolutional mel
    decoder without its sizes).

    Args:
        width: D of the vectors.
        channels, layers: of the decoder, `layers` before and after upsampling.
        repeats: frames per code.
        n_mels: mel bins M.
    """

    def __init__(
        self, width: int, channels: int, layers: int, repeats: int, n_mels: int, *, rngs: nnx.Rngs
    ) -> None:
        embed = ("embed",)
        self.input = Linear((width,), (channels,), embed, (None,), bias=True, rngs=rngs)
        self.coarse, self.fine = (
            nnx.List(Conv(channels, channels, KERNEL, rngs=rngs) for _ in range(layers))
            for _ in range(2)
        )
        self.upsample = ConvTranspose(channels, channels, repeats, stride=repeats, rngs=rngs)
        self.output = Linear((channels,), (n_mels,), (None,), embed, bias=True, rngs=rngs)

    def __call__(self, vectors: jax.Array) -> jax.Array:
        """vectors [B, T, D] -> log-mel [B, T * repeats, M] float32."""
        x = self.input(vectors)  # [B, T, C]
        for conv in self.coarse:
            x = x + _centred(conv, x)
        x = self.upsample(x)  # [B, T * repeats, C]
        for conv in self.fine:
            x = x + _centred(conv, x)
        return self.output(jax.nn.gelu(x)).astype(jnp.float32)


def _centred(conv: Conv, x: jax.Array) -> jax.Array:
    """A causal convolution of gelu(x), shifted so that it is centred. [B, T, C] -> [B, T, C]."""
    late = KERNEL // 2
    return conv(jnp.pad(jax.nn.gelu(x), ((0, 0), (0, late), (0, 0))))[:, late:]
