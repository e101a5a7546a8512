"""Upsampling stages with Snake activations: latent steps to waveform."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.layers.conv import Conv, ConvState, ConvTranspose
from qtts_jax.layers.snake import SnakeBeta

# Fixed in the upstream class `Qwen3TTSTokenizerV2DecoderDecoderBlock`, absent from its config.
KERNEL, DILATIONS = 7, (1, 3, 9)


class Residual(nnx.Module):
    """x + conv2(snake(conv1(snake(x)))), conv1 dilated, conv2 pointwise."""

    def __init__(self, channels: int, dilation: int, *, rngs: nnx.Rngs) -> None:
        self.activation1 = SnakeBeta(channels, rngs=rngs)
        self.conv1 = Conv(channels, channels, KERNEL, dilation=dilation, rngs=rngs)
        self.activation2 = SnakeBeta(channels, rngs=rngs)
        self.conv2 = Conv(channels, channels, 1, rngs=rngs)

    def init_state(self, batch: int, dtype: jnp.dtype) -> ConvState:
        """The state of `conv1`."""
        return self.conv1.init_state(batch, dtype)

    def step(self, x: jax.Array, state: ConvState) -> tuple[jax.Array, ConvState]:
        """x [B, T, C] -> (y [B, T, C], state)."""
        y, state = self.conv1.step(self.activation1(x), state)  # [B, T, C]
        return x + self.conv2(self.activation2(y)), state

    def __call__(self, x: jax.Array) -> jax.Array:
        """A full sequence [B, T, C] from a fresh state."""
        return self.step(x, self.init_state(x.shape[0], x.dtype))[0]


StageState = tuple[jax.Array | tuple[()], tuple[ConvState, ...]]


class UpsampleStage(nnx.Module):
    """Snake, a transposed convolution that multiplies the rate, three residual units."""

    def __init__(self, in_channels: int, out_channels: int, rate: int, *, rngs: nnx.Rngs) -> None:
        self.activation = SnakeBeta(in_channels, rngs=rngs)
        self.transposed = ConvTranspose(in_channels, out_channels, 2 * rate, stride=rate, rngs=rngs)
        self.residuals = nnx.List(Residual(out_channels, d, rngs=rngs) for d in DILATIONS)

    def init_state(self, batch: int, dtype: jnp.dtype) -> StageState:
        """States of the transposed convolution and of the residual units."""
        residuals = tuple(unit.init_state(batch, dtype) for unit in self.residuals)
        return self.transposed.init_state(batch, dtype), residuals

    def step(self, x: jax.Array, state: StageState) -> tuple[jax.Array, StageState]:
        """x [B, T, C] -> (y [B, T * rate, C'], state)."""
        x, first = self.transposed.step(self.activation(x), state[0])  # [B, T * rate, C']
        residuals = []
        for unit, unit_state in zip(self.residuals, state[1], strict=True):
            x, unit_state = unit.step(x, unit_state)
            residuals.append(unit_state)
        return x, (first, tuple(residuals))

    def __call__(self, x: jax.Array) -> jax.Array:
        """A full sequence [B, T, C] from a fresh state."""
        return self.step(x, self.init_state(x.shape[0], x.dtype))[0]
