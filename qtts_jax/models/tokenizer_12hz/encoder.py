"""Encoder of the 12 Hz tokenizer (the encoder of Mimi, arXiv:2410.00037): samples to codes."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tokenizer_12hz import Encoder12HzConfig, Quirks12Hz
from qtts_jax.layers.conv import Conv, ConvState
from qtts_jax.layers.rvq import SplitRVQ
from qtts_jax.modules.seanet import SeanetEncoder, SeanetState, ceil_div
from qtts_jax.modules.transformer import Transformer, TransformerState


class EncoderState(NamedTuple):
    """State of the encoder between two chunks of audio."""

    seanet: SeanetState
    transformer: TransformerState
    downsample: ConvState


class Encoder(nnx.Module):
    """SEANet, transformer, downsampling convolution, split residual vector quantizer.

    Args:
        codebooks: number Q of codebooks to use, the first of those stored.
        quirks: `encoder_window` and `downsample_padding` are read.
    """

    def __init__(
        self, config: Encoder12HzConfig, codebooks: int, quirks: Quirks12Hz, *, rngs: nnx.Rngs
    ) -> None:
        c, t = config, config.transformer
        if c.channels != 1:
            raise AssertionError(f"the encoder reads mono audio, not {c.channels} channels")
        self.config, self.codebooks = config, codebooks
        self.seanet = SeanetEncoder(c, rngs=rngs)
        seen = t if quirks.encoder_window else dataclasses.replace(t, window=None)
        self.transformer = Transformer(seen, final_norm=False, rngs=rngs)
        self.downsample = Conv(
            t.width,
            t.width,
            2 * c.downsample,
            stride=c.downsample,
            bias=False,
            edge=quirks.downsample_padding,
            rngs=rngs,
        )
        self.quantizer = SplitRVQ(
            c.quantizer,
            trainable_start=True,
            projected=c.quantizer.width != c.quantizer.model_width,
            rngs=rngs,
        )

    def init_state(self, batch: int, dtype: jnp.dtype, capacity: int | None = None) -> EncoderState:
        """The state before the first sample.

        Args:
            capacity: code frames a stream may have when the attention has no window (by default
                as many as the model has positions); not used with a window.
        """
        t = self.transformer.config
        positions = None
        if t.window is None:
            positions = t.max_positions if capacity is None else capacity * self.config.downsample
        return EncoderState(
            self.seanet.init_state(batch, dtype),
            self.transformer.init_state(batch, dtype, positions),
            self.downsample.init_state(batch, dtype),
        )

    def embed(
        self, samples: jax.Array, state: EncoderState, lengths: jax.Array | None = None
    ) -> tuple[jax.Array, EncoderState]:
        """As `step`, but the vectors [B, T, D] before quantization."""
        lengths_latent = ceil_div(lengths, self.config.samples_per_frame // self.config.downsample)
        with jax.named_scope("seanet"):
            x, seanet = self.seanet.step(samples[..., None], state.seanet, lengths)
            # [B, T * downsample, D]
        with jax.named_scope("transformer"):
            x, transformer = self.transformer.step(x, state.transformer, lengths_latent)
        with jax.named_scope("downsample"):
            x, downsample = self.downsample.step(x, state.downsample, lengths_latent)
            # [B, T, D]
        return x, EncoderState(seanet, transformer, downsample)

    def step(
        self, samples: jax.Array, state: EncoderState, lengths: jax.Array | None = None
    ) -> tuple[jax.Array, EncoderState]:
        """Encode an integer number of frames of audio.

        Args:
            samples: [B, N] in [-1, 1], N a multiple of `config.samples_per_frame`.
            lengths: [B], how many of the N samples are real; a row with fewer has ended, its last
                frame is completed as if it were encoded alone. None for all.

        Returns:
            codes [B, N / samples_per_frame, Q] int32 and the state. Codes of a row from
            ceil(lengths / samples_per_frame) on, and its state, are undefined once it has ended.
        """
        x, state = self.embed(samples, state, lengths)
        with jax.named_scope("quantizer"):
            return self.quantizer.encode(x, self.codebooks), state

    def __call__(self, samples: jax.Array) -> jax.Array:
        """All samples [B, N] -> codes [B, ceil(N / samples_per_frame), Q] int32."""
        batch, n = samples.shape
        frames = -(-n // self.config.samples_per_frame)
        padded = jnp.pad(samples, ((0, 0), (0, frames * self.config.samples_per_frame - n)))
        state = self.init_state(batch, samples.dtype, frames)
        return self.step(padded, state, jnp.full((batch,), n))[0]
