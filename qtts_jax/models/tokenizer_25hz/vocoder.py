"""Mel frames to samples: BigVGAN (arXiv:2206.04658) in the partly causal form of the codec."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tokenizer_25hz_decoder import BigVGANConfig
from qtts_jax.layers.alias_free_snake import AHEAD, AliasFreeSnake
from qtts_jax.layers.conv import Conv, ConvState
from qtts_jax.layers.stream_position import Span, full_span
from qtts_jax.modules.bigvgan import AMPStage, AMPState

# Fixed in the upstream class `Qwen3TTSTokenizerV1DecoderBigVGANModel`, absent from its config.
INPUT_KERNEL, OUTPUT_KERNEL = 5, 7
CAUSAL_STAGES = 2
FLOOR_DB, REFERENCE_DB = -115.0, 20.0


class VocoderState(NamedTuple):
    """State of the vocoder between two chunks of mel."""

    input_conv: ConvState
    stages: tuple[AMPState, ...]
    output_activation: jax.Array
    output_conv: ConvState


def normalize(mel: jax.Array) -> jax.Array:
    """Natural-log amplitudes to [-1, 1]: from 115 dB below a reference of 20 dB up to it."""
    to_db = 20 / math.log(10)
    decibels = to_db * jnp.maximum(mel, FLOOR_DB / to_db) - REFERENCE_DB
    return jnp.clip(2 * ((decibels - FLOOR_DB) / -FLOOR_DB) - 1, -1, 1)


class Vocoder(nnx.Module):
    """Upsampling stages of anti-aliased Snake blocks (`Qwen3TTSTokenizerV1DecoderBigVGANModel`)."""

    def __init__(self, config: BigVGANConfig, *, rngs: nnx.Rngs) -> None:
        self.config = c = config
        self.input_conv = Conv(c.n_mels, c.width, INPUT_KERNEL, rngs=rngs)
        self.stages = nnx.List(
            AMPStage(
                c.width // 2**i,
                c.width // 2 ** (i + 1),
                rate,
                kernel,
                c.kernel_sizes,
                c.dilations,
                causal=i < CAUSAL_STAGES,
                rngs=rngs,
            )
            for i, (rate, kernel) in enumerate(
                zip(c.upsample_rates, c.upsample_kernels, strict=True)
            )
        )
        channels = c.width // 2 ** len(c.upsample_rates)
        self.output_activation = AliasFreeSnake(1, channels, rngs=rngs)
        self.output_conv = Conv(channels, 1, OUTPUT_KERNEL, bias=False, rngs=rngs)

    @property
    def delay(self) -> int:
        """Samples that the output of `step` is late: the right context of a sample."""
        late = INPUT_KERNEL // 2
        for stage in self.stages:
            late = late * stage.rate + stage.delay
        return late + AHEAD + OUTPUT_KERNEL // 2

    @property
    def flush_frames(self) -> int:
        """Frames of any value, after the last, that flush the last sample out of `step`."""
        return -(-self.delay // self.config.samples_per_frame)

    def init_state(self, batch: int, dtype: jnp.dtype) -> VocoderState:
        """The state before the first frame; `dtype` is that of all activations."""
        return VocoderState(
            self.input_conv.init_state(batch, dtype),
            tuple(stage.init_state(batch, dtype) for stage in self.stages),
            self.output_activation.init_state(batch, dtype),
            self.output_conv.init_state(batch, dtype),
        )

    def step(
        self, mel: jax.Array, state: VocoderState, span: Span
    ) -> tuple[jax.Array, VocoderState]:
        """Vocode T frames.

        Args:
            mel: [B, T, M] natural-log amplitudes at `span`; outside the signal any
                value, NaN included.

        Returns:
            samples [B, T * samples_per_frame] in [-1, 1] and the state. The samples are `delay`
            late: sample 0 is sample `span.position * samples_per_frame - delay` of the signal.
        """
        dtype = self.input_conv.kernel[...].dtype
        x = span.masked(normalize(mel.astype(jnp.float32)).astype(dtype))
        x, input_conv = self.input_conv.step(x, state.input_conv)  # [B, T, C]
        span = span.delayed(INPUT_KERNEL // 2)
        stages = []
        for i, (stage, old) in enumerate(zip(self.stages, state.stages, strict=True)):
            with jax.named_scope(f"stage_{i}"):
                x, new = stage.step(x, old, span)  # [B, T * rates so far, C / 2**(i + 1)]
            span = span.upsampled(stage.rate).delayed(stage.delay)
            stages.append(new)
        y, activation = self.output_activation.step(x[:, None], state.output_activation, span)
        x = span.delayed(AHEAD).masked(y[:, 0])  # [B, T * samples_per_frame, C]
        x, output_conv = self.output_conv.step(x, state.output_conv)
        after = VocoderState(input_conv, tuple(stages), activation, output_conv)
        return jnp.clip(x[..., 0], -1, 1), after

    def __call__(self, mel: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        """Full mels [B, T, M] -> samples [B, T * samples_per_frame] from a fresh state.

        Args:
            lengths: [B], the real frames of each row; None for all. Samples behind them are
                undefined.
        """
        batch, frames, _ = mel.shape
        padded = jnp.pad(mel, ((0, 0), (0, self.flush_frames), (0, 0)))
        state = self.init_state(batch, self.input_conv.kernel[...].dtype)
        samples, _ = self.step(padded, state, full_span(batch, frames, lengths))
        return samples[:, self.delay : self.delay + frames * self.config.samples_per_frame]
