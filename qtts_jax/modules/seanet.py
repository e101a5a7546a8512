"""SEANet encoder (arXiv:2009.02095, as in Mimi): waveform to latent steps."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tokenizer_12hz import Encoder12HzConfig
from qtts_jax.layers import dispatch
from qtts_jax.layers.conv import Conv, ConvState
from qtts_jax.layers.elu import elu
from qtts_jax.layers.time_blocks import step_in_blocks


def ceil_div(a: jax.Array | None, b: int) -> jax.Array | None:
    """Lengths after a layer of stride b; None stays None."""
    return None if a is None else -(-a // b)


class Residual(nnx.Module):
    """x + conv2(elu(conv1(elu(x)))), conv2 pointwise (upstream `MimiResnetBlock`)."""

    def __init__(
        self, channels: int, inner: int, kernel: int, dilation: int, *, rngs: nnx.Rngs
    ) -> None:
        self.conv1 = Conv(channels, inner, kernel, dilation=dilation, rngs=rngs)
        self.conv2 = Conv(inner, channels, 1, rngs=rngs)

    def init_state(self, batch: int, dtype: jnp.dtype) -> ConvState:
        """The state of `conv1`."""
        return self.conv1.init_state(batch, dtype)

    def step(self, x: jax.Array, state: ConvState) -> tuple[jax.Array, ConvState]:
        """x [B, T, C] -> (y [B, T, C], state)."""
        y, state = self.conv1.step(elu(x), state)  # [B, T, inner]
        return x + self.conv2(elu(y)), state

    def __call__(self, x: jax.Array) -> jax.Array:
        """A full sequence [B, T, C] from a fresh state."""
        return self.step(x, self.init_state(x.shape[0], x.dtype))[0]


StageState = tuple[tuple[ConvState, ...], ConvState]


class Stage(nnx.Module):
    """Residual units, then a convolution that divides the rate and doubles the channels."""

    def __init__(
        self, config: Encoder12HzConfig, channels: int, ratio: int, *, rngs: nnx.Rngs
    ) -> None:
        c = config
        self.residuals = nnx.List(
            Residual(
                channels,
                channels // c.compress,
                c.residual_kernel,
                c.dilation_growth**i,
                rngs=rngs,
            )
            for i in range(c.residual_layers)
        )
        self.downsample = Conv(channels, 2 * channels, 2 * ratio, stride=ratio, rngs=rngs)

    def init_state(self, batch: int, dtype: jnp.dtype) -> StageState:
        """States of the residual units and of the strided convolution."""
        residuals = tuple(unit.init_state(batch, dtype) for unit in self.residuals)
        return residuals, self.downsample.init_state(batch, dtype)

    def step(
        self, x: jax.Array, state: StageState, lengths: jax.Array | None = None
    ) -> tuple[jax.Array, StageState]:
        """x [B, T, C], T a multiple of the ratio -> (y [B, T / ratio, 2 C], state)."""
        residuals = []
        for unit, unit_state in zip(self.residuals, state[0], strict=True):
            x, unit_state = unit.step(x, unit_state)
            residuals.append(unit_state)
        x, last = self.downsample.step(elu(x), state[1], lengths)  # [B, T / ratio, 2 C]
        return x, (tuple(residuals), last)


WideState = tuple[ConvState, tuple[StageState, ...]]
SeanetState = tuple[ConvState, tuple[StageState, ...], ConvState]


class SeanetEncoder(nnx.Module):
    """Input convolution, one stage per ratio, output convolution (upstream `MimiEncoder`)."""

    def __init__(self, config: Encoder12HzConfig, *, rngs: nnx.Rngs) -> None:
        c = config
        self.ratios = c.ratios
        self.input_conv = Conv(c.channels, c.filters, c.kernel, rngs=rngs)
        self.stages = nnx.List(
            Stage(c, c.filters * 2**i, ratio, rngs=rngs) for i, ratio in enumerate(c.ratios)
        )
        last = c.filters * 2 ** len(c.ratios)
        self.output_conv = Conv(last, c.transformer.width, c.last_kernel, rngs=rngs)

    def init_state(self, batch: int, dtype: jnp.dtype) -> SeanetState:
        """States of the input convolution, the stages and the output convolution."""
        return (
            self.input_conv.init_state(batch, dtype),
            tuple(stage.init_state(batch, dtype) for stage in self.stages),
            self.output_conv.init_state(batch, dtype),
        )

    def step(
        self, x: jax.Array, state: SeanetState, lengths: jax.Array | None = None
    ) -> tuple[jax.Array, SeanetState]:
        """Encode an integer number of latent steps of audio.

        Args:
            x: [B, T, C], T a multiple of the product of the ratios.
            lengths: [B] real samples per row (see `Conv.step`); None for all.

        Returns:
            [B, T / product, D] and the state.
        """
        first, stages, last = state
        # The last stage has most of the weights, which each block would read again.
        unit = math.prod(self.ratios[:-1])
        widest = math.prod(x.shape[:2]) * self.input_conv.kernel.shape[-1]
        blocks = dispatch.time_blocks(x.shape[1] // unit, widest)
        x, (first, wide) = step_in_blocks(
            SeanetEncoder._wide, self, x, (first, stages[:-1]), lengths, blocks
        )  # [B, T / unit, C]
        lengths = ceil_div(lengths, unit)
        x, stage = self.stages[-1].step(x, stages[-1], lengths)  # [B, T / product, C]
        x, last = self.output_conv.step(elu(x), last)
        return x, (first, (*wide, stage), last)

    def _wide(
        self, x: jax.Array, state: WideState, lengths: jax.Array | None
    ) -> tuple[jax.Array, WideState]:
        """Input convolution and all stages but the last."""
        x, first = self.input_conv.step(x, state[0])  # [B, T, filters]
        stages = []
        for stage, stage_state, ratio in zip(self.stages, state[1], self.ratios, strict=False):
            x, stage_state = stage.step(x, stage_state, lengths)  # [B, T / ratios so far, C]
            lengths = ceil_div(lengths, ratio)
            stages.append(stage_state)
        return x, (first, tuple(stages))

    def __call__(self, x: jax.Array) -> jax.Array:
        """A full sequence [B, T, C] from a fresh state."""
        return self.step(x, self.init_state(x.shape[0], x.dtype))[0]
