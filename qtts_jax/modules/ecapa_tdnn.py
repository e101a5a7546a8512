"""Blocks of ECAPA-TDNN (Desplanques et al. 2020, sections 2.1 and 3), channels last.

Every block takes `lengths` [B], the real frames of each right-padded row, and gives a row what it
gives alone: convolutions reflect at the row's own end and averages run over its own frames. The
padding of an input must be finite; the padding of an output is undefined but finite.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.layers.conv import valid_steps
from qtts_jax.layers.param import constant, fan_in, param

MIN_VARIANCE = 1e-12


def reflection(kernel: int, dilation: int) -> tuple[int, int]:
    """Frames mirrored (left, right) so that a convolution keeps the length of its input."""
    total = dilation * (kernel - 1)
    return total // 2, total - total // 2


class ReflectConv(nnx.Module):
    """Convolution that keeps the length, mirroring the input at both ends without its edge frame.

    A row must be longer than the larger of its two `reflection` margins. The parameter is stored
    [k, in, out] (upstream `Conv1d(padding="same", padding_mode="reflect")`).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        dilation: int = 1,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.dilation = dilation
        shape = (kernel, in_channels, out_channels)
        axes = (None, "conv_in", "conv_out")
        self.kernel = param(rngs, shape, axes, fan_in(kernel * in_channels))
        self.bias = param(rngs, (out_channels,), ("conv_out",), constant(0.0))

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """x [B, T, C], lengths [B] -> [B, T, C']."""
        kernel = self.kernel[...]
        left, right = reflection(kernel.shape[0], self.dilation)
        if left + right:
            x = _mirrored(x, lengths, left, right)
        # One product over all taps: cuDNN's gradients of kernels of a dozen channels were a
        # seventh of a step of nano on an H100.
        taps = kernel.shape[0]
        time = x.shape[1] - self.dilation * (taps - 1)
        shifted = [x[:, i * self.dilation : i * self.dilation + time] for i in range(taps)]
        y = jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[2])  # [B, T, C']
        return y + self.bias[...]


def _mirrored(x: jax.Array, lengths: jax.Array, left: int, right: int) -> jax.Array:
    """x [B, T, C] with `left` frames before and `right` behind each row's own end mirrored.

    Only the margins are indexed, because the gradient of indexing is a slow scatter.
    Positions further behind the end feed undefined outputs only.
    """
    last = lengths[:, None] - 1
    source = last - jnp.arange(1, right + 1)
    mirror = jnp.take_along_axis(x, source[..., None], axis=1)  # [B, right, C]
    position = jnp.arange(x.shape[1] + right)
    y = jnp.pad(x, ((0, 0), (0, right), (0, 0)))
    for i in range(right):
        y = jnp.where((position == last + 1 + i)[..., None], mirror[:, i : i + 1], y)
    return jnp.concatenate([x[:, left:0:-1], y], axis=1)


class TDNN(nnx.Module):
    """Convolution and ReLU (upstream `TimeDelayNetBlock`)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        dilation: int = 1,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv = ReflectConv(in_channels, out_channels, kernel, dilation, rngs=rngs)

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """x [B, T, C], lengths [B] -> [B, T, C']."""
        return jax.nn.relu(self.conv(x, lengths))


class Res2Net(nnx.Module):
    """`scale` groups of channels; each but the first is filtered with the previous result added.

    Group 0 passes through and group 1 is filtered alone, so there are scale - 1 filters (upstream
    `Res2NetBlock`).
    """

    def __init__(
        self, channels: int, scale: int, kernel: int, dilation: int, *, rngs: nnx.Rngs
    ) -> None:
        self.scale = scale
        width = channels // scale
        self.blocks = nnx.List(
            [TDNN(width, width, kernel, dilation, rngs=rngs) for _ in range(scale - 1)]
        )

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """x [B, T, C], lengths [B] -> [B, T, C]."""
        first, *groups = jnp.split(x, self.scale, axis=-1)
        outputs = [first]
        for i, (block, group) in enumerate(zip(self.blocks, groups, strict=True)):
            outputs.append(block(group if i == 0 else group + outputs[-1], lengths))
        return jnp.concatenate(outputs, axis=-1)


class SqueezeExcitation(nnx.Module):
    """Scales every channel by a gate computed from the averages of all channels over time."""

    def __init__(self, channels: int, inner: int, *, rngs: nnx.Rngs) -> None:
        self.conv1 = ReflectConv(channels, inner, rngs=rngs)
        self.conv2 = ReflectConv(inner, channels, rngs=rngs)

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """x [B, T, C], lengths [B] -> [B, T, C]; the average is float32."""
        total = jnp.sum(x, axis=1, keepdims=True, where=valid_steps(x, lengths), dtype=jnp.float32)
        mean = (total / lengths[:, None, None]).astype(x.dtype)
        gate = self.conv2(jax.nn.relu(self.conv1(mean, lengths)), lengths)
        return x * jax.nn.sigmoid(gate)


class SERes2NetBlock(nnx.Module):
    """x + SE(TDNN(Res2Net(TDNN(x)))) (upstream `SqueezeExcitationRes2NetBlock`)."""

    def __init__(
        self,
        channels: int,
        kernel: int,
        dilation: int,
        *,
        scale: int,
        se_channels: int,
        rngs: nnx.Rngs,
    ) -> None:
        self.tdnn1 = TDNN(channels, channels, rngs=rngs)
        self.res2net = Res2Net(channels, scale, kernel, dilation, rngs=rngs)
        self.tdnn2 = TDNN(channels, channels, rngs=rngs)
        self.se = SqueezeExcitation(channels, se_channels, rngs=rngs)

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """x [B, T, C], lengths [B] -> [B, T, C]."""
        y = self.res2net(self.tdnn1(x, lengths), lengths)
        return x + self.se(self.tdnn2(y, lengths), lengths)


class AttentiveStatisticsPooling(nnx.Module):
    """Mean and deviation over time, weighted per channel by attention over the frames.

    The attention weights depend on each frame and on the plain mean and deviation of its row.
    Deviations are of the population, over variances of at least `MIN_VARIANCE`.
    """

    def __init__(self, channels: int, attention_channels: int, *, rngs: nnx.Rngs) -> None:
        self.tdnn = TDNN(3 * channels, attention_channels, rngs=rngs)
        self.conv = ReflectConv(attention_channels, channels, rngs=rngs)

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """x [B, T, C], lengths [B] -> [B, 2 C], means before deviations; sums are float32."""
        valid = valid_steps(x, lengths)
        mean, deviation = _statistics(x, valid / lengths[:, None, None])
        context = [jnp.broadcast_to(s[:, None], x.shape) for s in (mean, deviation)]
        hidden = jnp.tanh(self.tdnn(jnp.concatenate([x, *context], axis=-1), lengths))
        scores = self.conv(hidden, lengths).astype(jnp.float32)
        weights = jax.nn.softmax(jnp.where(valid, scores, -jnp.inf), axis=1)
        return jnp.concatenate(_statistics(x, weights), axis=-1)


def _statistics(x: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and deviation [B, C] of x [B, T, C] under weights [B, T, C or 1] that sum to one."""
    dtype, x = x.dtype, x.astype(jnp.float32)
    mean = jnp.sum(weights * x, axis=1)
    variance = jnp.sum(weights * jnp.square(x - mean[:, None]), axis=1)
    deviation = jnp.sqrt(jnp.maximum(variance, MIN_VARIANCE))
    return mean.astype(dtype), deviation.astype(dtype)
