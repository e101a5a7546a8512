"""Convolution with weight normalization over one or two axes, channels last."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.layers.param import constant, fan_in, param

LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}


class WeightNormConv(nnx.Module):
    """y = (gain * direction / |direction|) * x + bias, |.| over all but the output channels.

    Not causal: as much zero padding on either side as keeps the length at stride 1. Source: weight
    normalization (arXiv:1602.07868), which HiFi-GAN and EnCodec use in every discriminator.

    Args:
        kernel: odd taps per axis; one or two axes.
        stride, dilation: per axis.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, ...],
        *,
        stride: tuple[int, ...] | None = None,
        dilation: tuple[int, ...] | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        axes = len(kernel)
        self.stride, self.dilation = stride or (1,) * axes, dilation or (1,) * axes
        half = [(k - 1) // 2 * d for k, d in zip(kernel, self.dilation, strict=True)]
        self.padding = [(p, p) for p in half]
        shape, names = (*kernel, in_channels, out_channels), (None,) * axes
        fan = math.prod(kernel) * in_channels
        self.direction = param(rngs, shape, (*names, "conv_in", "conv_out"), fan_in(fan))
        # He's start (arXiv:1502.01852) keeps the level from layer to layer. With the usual one of
        # convolutions a stack of six starts a hundred times quieter than its input, and a training
        # of minutes is over before it tells anything apart.
        self.gain = param(rngs, (out_channels,), ("conv_out",), constant(math.sqrt(2)))
        self.bias = param(rngs, (out_channels,), ("conv_out",), constant(0.0))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, *axes, C] -> [B, *axes / stride, C'] in the dtype of the parameters."""
        direction = self.direction[...]
        wide = direction.astype(jnp.float32)
        square = jnp.sum(jnp.square(wide), axis=range(direction.ndim - 1))
        kernel = wide * (self.gain[...].astype(jnp.float32) * jax.lax.rsqrt(square + 1e-12))
        y = jax.lax.conv_general_dilated(
            x.astype(direction.dtype),
            kernel.astype(direction.dtype),
            self.stride,
            self.padding,
            rhs_dilation=self.dilation,
            dimension_numbers=LAYOUTS[len(self.stride)],
        )
        return y + self.bias[...]
