"""The encoder of Whisper (arXiv:2212.04356), the semantic teacher of codebook 0.

It was trained to recognise speech, so its frame-level features carry the content. The published
tokenizer was distilled from a self-supervised model (WavLM) instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qtts_jax.configs.tokenizer_25hz import CONV_STRIDE, ENCODER_HOP, ENCODER_SAMPLE_RATE
from qtts_jax.dsp.whisper_mel import MARGIN, log_power, normalize
from qtts_jax.layers.conv import Conv
from qtts_jax.layers.norm import LayerNorm
from qtts_jax.modules.whisper_block import NORM_EPS, WhisperBlock, sinusoids

CONV_KERNEL = 3
# Samples of one feature, at the rate of the encoder.
STEP = ENCODER_HOP * CONV_STRIDE
SAMPLE_RATE = ENCODER_SAMPLE_RATE


@dataclass(frozen=True)
class WhisperConfig:
    """Sizes; the defaults are those of Whisper base.

    Attributes:
        window: seconds of audio that are encoded at once, as in its training.
    """

    n_mels: int = 80
    width: int = 512
    heads: int = 8
    layers: int = 6
    window: int = 30

    @property
    def samples(self) -> int:
        """Samples of a window."""
        return self.window * SAMPLE_RATE

    @property
    def steps(self) -> int:
        """Features (encoder positions) of a window."""
        return self.samples // STEP


class WhisperEncoder(nnx.Module):
    """Two convolutions, positions, transformer blocks, norm (upstream `AudioEncoder`)."""

    def __init__(self, config: WhisperConfig, *, rngs: nnx.Rngs) -> None:
        c = self.config = config
        self.conv1 = Conv(c.n_mels, c.width, CONV_KERNEL, rngs=rngs)
        self.conv2 = Conv(c.width, c.width, CONV_KERNEL, stride=CONV_STRIDE, rngs=rngs)
        self.layers = nnx.List([WhisperBlock(c.width, c.heads, rngs=rngs) for _ in range(c.layers)])
        self.norm = LayerNorm(c.width, NORM_EPS, rngs=rngs)

    def __call__(self, mel: jax.Array) -> jax.Array:
        """Features [B, T / 2, D] of normalised log-mel frames [B, T, M]; all of T is attended."""
        # A causal convolution read one frame later sees one frame on either side.
        x = self.conv1(jnp.pad(mel, ((0, 0), (0, 1), (0, 0))))[:, 1:]  # [B, T, D]
        x = self.conv2(jax.nn.gelu(x, approximate=False))  # [B, T / 2, D]
        x = jax.nn.gelu(x, approximate=False)
        x = x + jnp.asarray(sinusoids(x.shape[1], self.config.width), x.dtype)
        steps = jnp.full(x.shape[0], x.shape[1])
        for block in self.layers:
            with jax.named_scope("block"):
                x = block(x, steps, steps)
        return self.norm(x)


def window_mel(waves: np.ndarray | jax.Array, n_mels: int) -> jax.Array:
    """Log-mel frames of windows [B, N] at 16 kHz, silence included: [B, N / 160, M] float32."""
    padded = jnp.pad(jnp.asarray(waves, jnp.float32), ((0, 0), (MARGIN, MARGIN)), mode="reflect")
    power = log_power(padded, n_mels)
    return normalize(power, jnp.max(power, axis=(1, 2), keepdims=True))
