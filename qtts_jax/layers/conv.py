"""Causal convolutions over time, channels last."""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from qtts_jax.layers import dispatch
from qtts_jax.layers.param import constant, fan_in, param


class EdgeState(NamedTuple):
    """State of a convolution that repeats its first input to the left.

    Attributes:
        inputs: [B, P, C], the newest inputs.
        started: [B] bool, whether the row has had its first input.
    """

    inputs: jax.Array
    started: jax.Array


LAYOUT = ("NWC", "WIO", "NWC")

ConvState = jax.Array | EdgeState | tuple[()]


def valid_steps(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """[B, T, 1] bool, True before the end of each row of x [B, T, C]."""
    return (jnp.arange(x.shape[1]) < lengths[:, None])[..., None]


class Conv(nnx.Module):
    """Causal convolution: output t depends on inputs up to (t + 1) * stride - 1.

    The left padding of kernel span minus stride is the state, so a step is a convolution without
    padding over [state, x] (upstream `Qwen3TTSTokenizerV2CausalConvNet`, `MimiConv1d`).

    Args:
        kernel: taps k; the parameter is stored [k, in / groups, out].
        edge: what lies before the first and after the last input: "zeros", or "replicate" for
            the first and the last input themselves.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        edge: Literal["zeros", "replicate"] = "zeros",
        rngs: nnx.Rngs,
    ) -> None:
        self.in_channels, self.stride, self.dilation = in_channels, stride, dilation
        self.groups, self.edge = groups, edge
        self.memory = (kernel - 1) * dilation + 1 - stride
        if self.memory < 0:
            raise AssertionError(f"a kernel of {kernel} skips inputs at stride {stride}")
        fan = kernel * in_channels // groups
        shape = (kernel, in_channels // groups, out_channels)
        self.kernel = param(rngs, shape, (None, "conv_in", "conv_out"), fan_in(fan))
        self.bias = param(rngs, (out_channels,), ("conv_out",), constant(0.0)) if bias else None

    def init_state(self, batch: int, dtype: jnp.dtype) -> ConvState:
        """The state before the first input; () where there is no memory."""
        if self.memory == 0:
            return ()
        inputs = jnp.zeros((batch, self.memory, self.in_channels), dtype)
        if self.edge == "zeros":
            return inputs
        return EdgeState(inputs, jnp.zeros((batch,), bool))

    def step(
        self, x: jax.Array, state: ConvState, lengths: jax.Array | None = None
    ) -> tuple[jax.Array, ConvState]:
        """Consume T inputs, a multiple of the stride.

        Args:
            x: [B, T, C].
            lengths: [B], how many of the T inputs are real; a row that is shorter than T has
                ended. What follows its end is replaced by the edge value, so that right padding
                (NaN included) gives what the row gives alone. None for all.

        Returns:
            y [B, T / stride, C'] and the state. Outputs from ceil(lengths / stride) on, and the
            state of an ended row, are undefined.
        """
        if x.shape[1] % self.stride:
            raise AssertionError(f"{x.shape[1]} inputs are no multiple of stride {self.stride}")
        # At stride 1 no output before the end of a row depends on an input after it.
        if lengths is not None and self.stride > 1:
            x = jnp.where(valid_steps(x, lengths), x, self._after_end(x, lengths))
        if isinstance(state, EdgeState):
            first = jnp.broadcast_to(x[:, :1], state.inputs.shape)
            before = jnp.where(state.started[:, None, None], state.inputs, first)
            x = jnp.concatenate([before, x], axis=1)  # [B, P + T, C]
            started = jnp.ones((x.shape[0],), bool)
            state = EdgeState(x[:, x.shape[1] - self.memory :], started)
        elif not isinstance(state, tuple):
            x = jnp.concatenate([state, x], axis=1)  # [B, P + T, C]
            state = x[:, x.shape[1] - self.memory :]  # [B, P, C]
        return self._convolve(x), state

    def __call__(self, x: jax.Array) -> jax.Array:
        """A full sequence [B, T, C] from a fresh state."""
        return self.step(x, self.init_state(x.shape[0], x.dtype))[0]

    def _after_end(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        if self.edge == "zeros":
            return jnp.zeros((), x.dtype)
        last = jnp.maximum(lengths - 1, 0)[:, None, None]
        return jnp.take_along_axis(x, last, axis=1)

    def _convolve(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        if self.groups == self.in_channels == kernel.shape[2]:
            y = depthwise(x, kernel[:, 0], self.stride, self.dilation)
        elif self.in_channels == 1 and dispatch.one_channel_as_sum():
            y = one_channel_as_sum(x, kernel, self.stride, self.dilation)
        elif self.groups == 1 and dispatch.convolve_by_product(*x.shape[:2]):
            y = as_product(x, kernel, self.stride, self.dilation)
        elif self.dilation > self.stride == self.groups and dispatch.dilation_as_grid():
            y = dilated_as_grid(x, kernel, self.dilation)
        else:
            y = general(x, kernel, self.stride, self.dilation, self.groups)
        return y if self.bias is None else y + self.bias[...]


def general(
    x: jax.Array, kernel: jax.Array, stride: int, dilation: int, groups: int = 1
) -> jax.Array:
    """XLA's convolution of x [B, T, C] with a kernel [k, C / groups, C']."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride,),
        "VALID",
        rhs_dilation=(dilation,),
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )


def depthwise(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    """One filter per channel as a sum of shifted products, which XLA fuses into one loop.

    The general convolution takes 100 times as long on a CPU (1024 channels).

    Args:
        x: [B, T, C], or [B, T, 1] for C filters of one channel.
        kernel: [k, C].
    """
    last = x.shape[1] - (kernel.shape[0] - 1) * dilation
    y = x[:, :last:stride] * kernel[0]
    for i in range(1, kernel.shape[0]):
        y += x[:, i * dilation : i * dilation + last : stride] * kernel[i]
    return y


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def one_channel_as_sum(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    """A convolution of x [B, T, 1] with a kernel [k, 1, C'] as a sum of shifted products.

    Where there is a gradient the general convolution is taken: that of the sum is many sums over
    all of time, and takes a training step of the released encoder twice as long.
    """
    return depthwise(x, kernel[:, 0], stride, dilation)


@one_channel_as_sum.defjvp
def _general_with_gradient(
    stride: int, dilation: int, inputs: tuple[Any, Any], changes: tuple[Any, Any]
) -> tuple[jax.Array, jax.Array]:
    def run(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return general(x, kernel, stride, dilation)

    y, dy = jax.jvp(run, inputs, changes)
    return y, dy


def as_product(x: jax.Array, kernel: jax.Array, stride: int = 1, dilation: int = 1) -> jax.Array:
    """A convolution as one matrix product, of the inputs of every output side by side.

    Args:
        x: [B, T, C].
        kernel: [k, C, C'].
    """
    taps = kernel.shape[0]
    last = x.shape[1] - (taps - 1) * dilation
    starts = range(0, taps * dilation, dilation)
    windows = jnp.concatenate([x[:, i : i + last : stride] for i in starts], axis=-1)  # [B, T', kC]
    return windows @ kernel.reshape(-1, kernel.shape[2])


def dilated_as_grid(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """A dilated convolution as an undilated one over time folded to a grid [T / d, d].

    On an H100 the library's kernels for dilated convolutions take 1.5 times as long.

    Args:
        x: [B, T, C].
        kernel: [k, C, C'].
    """
    time = x.shape[1] - (kernel.shape[0] - 1) * dilation
    # The padding reaches only outputs that are cut off again.
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % dilation), (0, 0)))
    grid = rearrange(x, "b (t d) c -> b t d c", d=dilation)
    layout = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(
        grid, kernel[:, None], (1, 1), "VALID", dimension_numbers=layout
    )
    return rearrange(y, "b t d c -> b (t d) c")[:, :time]


class ConvTranspose(nnx.Module):
    """Causal transposed convolution: input t adds to outputs t * stride ... t * stride + k - 1.

    The `stride` outputs of step t are a linear map of the k / stride inputs up to t. So this is one
    matrix product per step, whose state is its newest inputs, without overlap-add (upstream
    `Qwen3TTSTokenizerV2CausalTransConvNet`).

    Args:
        kernel: taps k, a multiple of the stride. The parameter is stored as that matrix,
            [k / stride, in, stride, out]: the tap j * stride + p of an input is [j, :, p]. In any
            other order, decoding a single frame spends half its time on transposing weights.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int, rngs: nnx.Rngs
    ) -> None:
        if kernel % stride:
            raise AssertionError(f"kernel {kernel} is no multiple of stride {stride}")
        self.in_channels, self.stride, self.memory = in_channels, stride, kernel // stride - 1
        shape = (self.memory + 1, in_channels, stride, out_channels)
        init = fan_in(in_channels * (self.memory + 1))
        self.kernel = param(rngs, shape, (None, "conv_in", None, "conv_out"), init)
        self.bias = param(rngs, (out_channels,), ("conv_out",), constant(0.0))

    def init_state(self, batch: int, dtype: jnp.dtype) -> jax.Array | tuple[()]:
        """The inputs [B, k / stride - 1, C] before the first; () if there are none."""
        if self.memory == 0:
            return ()
        return jnp.zeros((batch, self.memory, self.in_channels), dtype)

    def step(
        self, x: jax.Array, state: jax.Array | tuple[()]
    ) -> tuple[jax.Array, jax.Array | tuple[()]]:
        """x [B, T, C] -> (y [B, T * stride, C'], state)."""
        time = x.shape[1]
        if not isinstance(state, tuple):
            x = jnp.concatenate([state, x], axis=1)
            state = x[:, time:]
        # For every output step its inputs, newest first.
        newest = range(self.memory, -1, -1)
        x = jnp.concatenate([x[:, i : i + time] for i in newest], axis=-1)  # [B, T, (k / stride) C]
        kernel = self.kernel[...].reshape(1, x.shape[-1], -1)
        if dispatch.convolve_by_product(x.shape[0], time):
            y = as_product(x, kernel)
        else:
            # A pointwise convolution, because XLA runs it faster than the same product on CPUs.
            y = jax.lax.conv_general_dilated(x, kernel, (1,), "VALID", dimension_numbers=LAYOUT)
        y = rearrange(y, "b t (stride c) -> b (t stride) c", stride=self.stride)
        return y + self.bias[...], state

    def __call__(self, x: jax.Array) -> jax.Array:
        """A full sequence [B, T, C] from a fresh state."""
        return self.step(x, self.init_state(x.shape[0], x.dtype))[0]
