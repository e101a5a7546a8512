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
        # He initialization (arXiv:1502.01852) keeps the variance from layer to layer. With the
        # usual one, six layers reduce the level a hundredfold, and discriminators stay at chance
        # for minutes of training.
        self.gain = param(rngs, (out_channels,), ("conv_out",), constant(math.sqrt(2)))
        self.bias = param(rngs, (out_channels,), ("conv_out",), constant(0.0))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [B, *axes, C] -> [B, *axes / stride, C'] in the dtype of the parameters."""
        direction = self.direction[...]
        wide = direction.astype(jnp.float32)
        square = jnp.sum(jnp.square(wide), axis=range(direction.ndim - 1))
        kernel = wide * (self.gain[...].astype(jnp.float32) * jax.lax.rsqrt(square + 1e-12))
        kernel = kernel.astype(direction.dtype)
        x = x.astype(direction.dtype)
        if len(self.stride) == 2:
            return _convolve_2d(x, kernel, self.stride, self.dilation) + self.bias[...]
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            self.stride,
            self.padding,
            rhs_dilation=self.dilation,
            dimension_numbers=LAYOUTS[1],
        )
        return y + self.bias[...]


def _convolve_2d(
    x: jax.Array, kernel: jax.Array, stride: tuple[int, ...], dilation: tuple[int, ...]
) -> jax.Array:
    """A convolution with a stride on the second axis and a dilation on the first, as a plain one.

    The phases of a dilation are rows of the batch, the phases of a stride are channels. On an H100
    the library's backward passes for strides and dilations take most of the time of a step.

    Args:
        x: [B, T, W, C].
        kernel: [k, l, C, C'], odd; zero padding keeps the lengths at stride 1.
        stride: (1, s).
        dilation: (d, 1).
    """
    batch, steps, width, channels = x.shape
    d, s = dilation[0], stride[1]
    if (stride[0], dilation[1]) != (1, 1):
        raise AssertionError(f"no stride {stride} with dilation {dilation} is used")
    half_t, half_w = (kernel.shape[0] - 1) // 2, (kernel.shape[1] - 1) // 2
    if d > 1:
        x = jnp.pad(x, ((0, 0), (0, -steps % d), (0, 0), (0, 0)))
        x = x.reshape(batch, -1, d, width, channels).swapaxes(1, 2)
        x = x.reshape(batch * d, -1, width, channels)
    out = -(-width // s)
    if s > 1:
        # Taps and inputs are padded with zeros to multiples of the stride; the first output's first
        # tap lies `half_w` before input 0.
        before = -half_w % s
        taps = -(-(kernel.shape[1] + before) // s)
        kernel = jnp.pad(
            kernel, ((0, 0), (before, taps * s - kernel.shape[1] - before), (0, 0), (0, 0))
        )
        kernel = kernel.reshape(kernel.shape[0], taps, s * channels, -1)
        left = half_w + before
        x = jnp.pad(x, ((0, 0), (0, 0), (left, (out + taps - 1) * s - left - width), (0, 0)))
        x = x.reshape(x.shape[0], x.shape[1], -1, s * channels)
        pad_w = (0, 0)
    else:
        pad_w = (half_w, half_w)
    y = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((half_t, half_t), pad_w), dimension_numbers=LAYOUTS[2]
    )
    if d > 1:
        y = y.reshape(batch, d, y.shape[1], out, -1).swapaxes(1, 2)
        y = y.reshape(batch, -1, out, y.shape[4])[:, :steps]
    return y
