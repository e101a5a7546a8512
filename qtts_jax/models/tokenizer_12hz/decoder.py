"""Decoder of the 12 Hz tokenizer: codes to samples, causal in every layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tokenizer_12hz import Decoder12HzConfig
from qtts_jax.layers.conv import Conv, ConvState, ConvTranspose
from qtts_jax.layers.linear import Linear
from qtts_jax.layers.rvq import SplitRVQ
from qtts_jax.layers.snake import SnakeBeta
from qtts_jax.modules.convnext import ConvNeXt
from qtts_jax.modules.transformer import Transformer, TransformerState
from qtts_jax.modules.upsample_stage import StageState, UpsampleStage

# Fixed in the upstream class `Qwen3TTSTokenizerV2Decoder`, absent from its config files.
PRE_KERNEL, KERNEL = 3, 7


class Upsample(nnx.Module):
    """A transposed convolution that multiplies the frame rate, then a ConvNeXt block."""

    def __init__(self, width: int, factor: int, *, rngs: nnx.Rngs) -> None:
        self.transposed = ConvTranspose(width, width, factor, stride=factor, rngs=rngs)
        self.convnext = ConvNeXt(width, rngs=rngs)

    def init_state(self, batch: int, dtype: jnp.dtype) -> ConvState:
        """The state of the ConvNeXt block; the transposed convolution has no overlap."""
        return self.convnext.init_state(batch, dtype)

    def step(self, x: jax.Array, state: ConvState) -> tuple[jax.Array, ConvState]:
        """x [B, T, D] -> (y [B, T * factor, D], state)."""
        return self.convnext.step(self.transposed(x), state)

    def __call__(self, x: jax.Array) -> jax.Array:
        """A full sequence [B, T, D] from a fresh state."""
        return self.step(x, self.init_state(x.shape[0], x.dtype))[0]


class DecoderState(NamedTuple):
    """State of the decoder between two chunks of codes."""

    pre_conv: ConvState
    transformer: TransformerState
    upsample: tuple[ConvState, ...]
    input_conv: ConvState
    stages: tuple[StageState, ...]
    output_conv: ConvState


class Decoder(nnx.Module):
    """Split RVQ, transformer, upsampling and Snake stages (`Qwen3TTSTokenizerV2Decoder`)."""

    def __init__(self, config: Decoder12HzConfig, *, rngs: nnx.Rngs) -> None:
        c, width = config, config.transformer.width
        latent, embed = c.latent_width, ("embed",)
        self.config = config
        self.quantizer = SplitRVQ(c.quantizer, trainable_start=False, projected=True, rngs=rngs)
        self.pre_conv = Conv(c.quantizer.model_width, latent, PRE_KERNEL, rngs=rngs)
        self.input_projection = Linear((latent,), (width,), embed, (None,), bias=True, rngs=rngs)
        self.transformer = Transformer(c.transformer, rngs=rngs)
        self.output_projection = Linear((width,), (latent,), (None,), embed, bias=True, rngs=rngs)
        self.upsample = nnx.List(
            Upsample(latent, factor, rngs=rngs) for factor in c.upsampling_ratios
        )
        widths = [c.decoder_width // 2**i for i in range(len(c.upsample_rates) + 1)]
        self.input_conv = Conv(latent, widths[0], KERNEL, rngs=rngs)
        self.stages = nnx.List(
            UpsampleStage(widths[i], widths[i + 1], rate, rngs=rngs)
            for i, rate in enumerate(c.upsample_rates)
        )
        self.output_activation = SnakeBeta(widths[-1], rngs=rngs)
        self.output_conv = Conv(widths[-1], 1, KERNEL, rngs=rngs)

    def init_state(self, batch: int, dtype: jnp.dtype) -> DecoderState:
        """The state before the first frame; `dtype` is that of all activations."""
        return DecoderState(
            self.pre_conv.init_state(batch, dtype),
            self.transformer.init_state(batch, dtype),
            tuple(stage.init_state(batch, dtype) for stage in self.upsample),
            self.input_conv.init_state(batch, dtype),
            tuple(stage.init_state(batch, dtype) for stage in self.stages),
            self.output_conv.init_state(batch, dtype),
        )

    def step(self, codes: jax.Array, state: DecoderState) -> tuple[jax.Array, DecoderState]:
        """Decode T frames.

        Args:
            codes: [B, T, Q] int, each below the size of its codebook.

        Returns:
            samples [B, T * samples_per_frame] in [-1, 1], of the dtype of the state, and the
            state.
        """
        dtype = jnp.dtype(jax.tree.leaves(state.pre_conv)[0].dtype)
        samples, state = self.synthesize(self.quantizer.decode(codes, dtype), state)
        return jnp.clip(samples, -1, 1), state

    def synthesize(self, x: jax.Array, state: DecoderState) -> tuple[jax.Array, DecoderState]:
        """As `step`, but from the decoded vectors [B, T, D] of the quantizer, and not clipped.

        The last convolution computes in the dtype of its own parameters, so that training in
        bfloat16 can keep it, and so the samples, in float32.
        """
        x, pre_conv = self.pre_conv.step(x, state.pre_conv)  # [B, T, latent width]
        with jax.named_scope("transformer"):
            x, transformer = self.transformer.step(self.input_projection(x), state.transformer)
            x = self.output_projection(x)  # [B, T, latent width]
        x, upsample = _chain(self.upsample, x, state.upsample, "upsample")
        # [B, T * upsampling, latent width]
        x, input_conv = self.input_conv.step(x, state.input_conv)
        x, stages = _chain(self.stages, x, state.stages, "stage")
        # [B, T * samples_per_frame, last width]
        x = self.output_activation(x.astype(self.output_conv.kernel.dtype))
        x, output_conv = self.output_conv.step(x, state.output_conv)  # [..., 1]
        state = DecoderState(pre_conv, transformer, upsample, input_conv, stages, output_conv)
        return x[..., 0], state

    def __call__(self, codes: jax.Array) -> jax.Array:
        """All codes [B, T, Q] -> samples [B, T * samples_per_frame] from a fresh state."""
        dtype = self.pre_conv.kernel.dtype
        return self.step(codes, self.init_state(codes.shape[0], dtype))[0]


def _chain(
    stages: Iterable[Any], x: jax.Array, states: tuple[Any, ...], name: str
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Apply the `step` of every stage in turn."""
    after = []
    for i, (stage, state) in enumerate(zip(stages, states, strict=True)):
        with jax.named_scope(f"{name}_{i}"):
            x, state = stage.step(x, state)
        after.append(state)
    return x, tuple(after)
