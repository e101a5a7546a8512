"""Anti-aliased multi-periodicity stages of BigVGAN (arXiv:2206.04658, section 3.3).

A stage has look-ahead, so its `step` takes the position of its input (`layers/stream_position.py`)
and its output is `delay` samples late.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.layers.alias_free_snake import AHEAD, AliasFreeSnake
from qtts_jax.layers.conv import LAYOUT, Conv, ConvState
from qtts_jax.layers.param import constant, fan_in, param
from qtts_jax.layers.stream_position import Span, delay


class CentredUpsample(nnx.Module):
    """Transposed convolution that trims (k - stride) / 2 samples on either side.

    In the causal form output u depends on inputs up to u / stride; the trimmed output is the same
    sequence from sample (k - stride) / 2 on, which in a stream is a delay of as many samples
    (upstream `ConvTranspose1d(padding=(k - stride) // 2)`). The parameter is stored [k, in, out].

    Args:
        kernel: taps k; k - stride must be even.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int, rngs: nnx.Rngs
    ) -> None:
        self.in_channels, self.stride = in_channels, stride
        self.delay = (kernel - stride) // 2
        self.memory = -(-kernel // stride) - 1
        shape = (kernel, in_channels, out_channels)
        init = fan_in(in_channels * (self.memory + 1))
        self.kernel = param(rngs, shape, (None, "conv_in", "conv_out"), init)
        self.bias = param(rngs, (out_channels,), ("conv_out",), constant(0.0))

    def init_state(self, batch: int, dtype: jnp.dtype) -> jax.Array:
        """The newest inputs [B, ceil(k / stride) - 1, C], before the first."""
        return jnp.zeros((batch, self.memory, self.in_channels), dtype)

    def step(self, x: jax.Array, state: jax.Array, span: Span) -> tuple[jax.Array, jax.Array]:
        """x [B, T, C] at `span` -> (y [B, T * stride, C'], state).

        y lies at `span.upsampled(stride).delayed(delay)`.
        """
        x = jnp.concatenate([state, span.masked(x)], axis=1)  # [B, P + T, C]
        kernel = self.kernel[...]
        y = jax.lax.conv_general_dilated(
            x,
            kernel[::-1],
            (1,),
            [(kernel.shape[0] - 1 - self.stride * self.memory, self.stride - 1)],
            lhs_dilation=(self.stride,),
            dimension_numbers=LAYOUT,
        )
        return y + self.bias[...], x[:, x.shape[1] - self.memory :]


class AMPState(NamedTuple):
    """State of an `AMPStage`; all but its transposed convolution have P blocks in axis 1.

    Attributes:
        upsample: inputs of the transposed convolution.
        activations: inputs of every activation in order.
        convs: states of the convolutions in order, of each block in turn.
        lines: delay lines in front of the centred convolutions with narrower kernels; likewise.
        sums: delay lines of the running sum, one for each unit, [B, P, n, C].
    """

    upsample: jax.Array
    activations: tuple[jax.Array, ...]
    convs: tuple[tuple[ConvState, ...], ...]
    lines: tuple[tuple[jax.Array, ...], ...]
    sums: tuple[jax.Array, ...]


class AMPStage(nnx.Module):
    """A transposed convolution that multiplies the rate, then the mean of P parallel blocks.

    A block adds to its input the outputs of chained units: activation, dilated convolution,
    activation, convolution. The input of a unit is the output of the unit before, not the sum, as
    in the official code. The dilated convolutions are causal. So are the others of a `causal`
    stage, whose blocks begin with a centred convolution and an activation; in other stages they
    are centred (upstream `AMPBlock` with causal_type "2" and "1").

    The blocks differ in kernels and dilations only, so they share an axis everywhere but in the
    convolutions, and narrower centred kernels are delayed as much as the widest.

    Args:
        kernels, dilations: of each block; all have equally many dilations.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        rate: int,
        upsample_kernel: int,
        kernels: tuple[int, ...],
        dilations: tuple[tuple[int, ...], ...],
        *,
        causal: bool,
        rngs: nnx.Rngs,
    ) -> None:
        self.rate, self.channels, self.causal = rate, out_channels, causal
        self.units = len(dilations[0])
        self.centres = [kernel // 2 for kernel in kernels]
        self.upsample = CentredUpsample(
            in_channels, out_channels, upsample_kernel, stride=rate, rngs=rngs
        )

        def convs(dilation: tuple[int, ...]) -> nnx.List[Conv]:
            return nnx.List(
                Conv(out_channels, out_channels, kernel, dilation=d, rngs=rngs)
                for kernel, d in zip(kernels, dilation, strict=True)
            )

        def activation() -> AliasFreeSnake:
            return AliasFreeSnake(len(kernels), out_channels, rngs=rngs)

        ones = (1,) * len(kernels)
        self.pre_conv = convs(ones) if causal else None
        self.pre_activation = activation() if causal else None
        self.convs1 = nnx.List(convs(each) for each in zip(*dilations, strict=True))
        self.convs2 = nnx.List(convs(ones) for _ in range(self.units))
        self.activations = nnx.List(activation() for _ in range(2 * self.units))

    @property
    def _waits(self) -> list[int]:
        """Samples by which the running sum is delayed to match the output of each unit."""
        centre = max(self.centres)
        unit = 2 * AHEAD + (0 if self.causal else centre)
        return [unit + (centre + AHEAD if self.causal else 0)] + [unit] * (self.units - 1)

    @property
    def delay(self) -> int:
        """Delay that the stage adds to that of its input, in output samples."""
        return self.upsample.delay + sum(self._waits)

    def init_state(self, batch: int, dtype: jnp.dtype) -> AMPState:
        """The state before the first sample."""
        pre = [] if self.pre_activation is None else [self.pre_activation]
        groups = [] if self.pre_conv is None else [self.pre_conv]
        centred = groups if self.causal else list(self.convs2)
        for pair in zip(self.convs1, self.convs2, strict=True):
            groups = [*groups, *pair]
        extra = [max(self.centres) - centre for centre in self.centres]
        return AMPState(
            self.upsample.init_state(batch, dtype),
            tuple(a.init_state(batch, dtype) for a in [*pre, *self.activations]),
            tuple(tuple(c.init_state(batch, dtype) for c in group) for group in groups),
            tuple(
                tuple(jnp.zeros((batch, n, self.channels), dtype) for n in extra) for _ in centred
            ),
            tuple(jnp.zeros((batch, len(extra), n, self.channels), dtype) for n in self._waits),
        )

    def step(self, x: jax.Array, state: AMPState, span: Span) -> tuple[jax.Array, AMPState]:
        """x [B, T, C] at `span` -> (y [B, T * rate, C'], state).

        y lies at `span.upsampled(rate).delayed(delay)`.
        """
        old_activations = iter(state.activations)
        old_convs, old_lines = iter(state.convs), iter(state.lines)
        activations: list[jax.Array] = []
        convs: list[tuple[ConvState, ...]] = []
        lines: list[tuple[jax.Array, ...]] = []
        sums: list[jax.Array] = []

        def activate(layer: AliasFreeSnake, y: jax.Array, at: Span) -> tuple[jax.Array, Span]:
            y, new = layer.step(y, next(old_activations), at)
            activations.append(new)
            return y, at.delayed(AHEAD)

        def convolve(
            group: nnx.List[Conv], y: jax.Array, at: Span, *, centred: bool
        ) -> tuple[jax.Array, Span]:
            inputs = list(jnp.unstack(at.masked(y, axis=2), axis=1))
            if centred:
                waited = [delay(*each) for each in zip(inputs, next(old_lines), strict=True)]
                inputs = [each[0] for each in waited]
                lines.append(tuple(each[1] for each in waited))
                at = at.delayed(max(self.centres))
            done = [
                conv.step(each, old)
                for conv, each, old in zip(group, inputs, next(old_convs), strict=True)
            ]
            convs.append(tuple(each[1] for each in done))
            return jnp.stack([each[0] for each in done], axis=1), at

        x, upsample = self.upsample.step(x, state.upsample, span)
        span = span.upsampled(self.rate).delayed(self.upsample.delay)
        total = y = jnp.repeat(x[:, None], len(self.centres), axis=1)  # [B, P, T * rate, C']
        if self.pre_conv is not None and self.pre_activation is not None:
            y, span = convolve(self.pre_conv, y, span, centred=True)
            y, span = activate(self.pre_activation, y, span)
        for i, (conv1, conv2) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            y, span = activate(self.activations[2 * i], y, span)
            y, span = convolve(conv1, y, span, centred=False)
            y, span = activate(self.activations[2 * i + 1], y, span)
            y, span = convolve(conv2, y, span, centred=not self.causal)
            total, waiting = delay(total, state.sums[i], axis=2)
            sums.append(waiting)
            total = total + y  # [B, P, T * rate, C']
        after = AMPState(upsample, tuple(activations), tuple(convs), tuple(lines), tuple(sums))
        return jnp.mean(total, axis=1, dtype=jnp.float32).astype(total.dtype), after
