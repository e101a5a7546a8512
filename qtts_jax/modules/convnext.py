"""ConvNeXt block (arXiv:2201.03545) over time, causal."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.layers.conv import Conv, ConvState
from qtts_jax.layers.linear import Linear
from qtts_jax.layers.norm import LayerNorm
from qtts_jax.layers.param import constant, param

# Fixed in the upstream class `Qwen3TTSTokenizerV2ConvNeXtBlock`, absent from its config files.
KERNEL, EXPANSION, NORM_EPS, INITIAL_SCALE = 7, 4, 1e-6, 1e-6


class ConvNeXt(nnx.Module):
    """x + scale * down(gelu(up(norm(depthwise(x)))))."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        inner = EXPANSION * width
        self.depthwise = Conv(width, width, KERNEL, groups=width, rngs=rngs)
        self.norm = LayerNorm(width, NORM_EPS, rngs=rngs)
        self.up = Linear((width,), (inner,), ("embed",), ("ffn",), bias=True, rngs=rngs)
        self.down = Linear((inner,), (width,), ("ffn",), ("embed",), bias=True, rngs=rngs)
        self.scale = param(rngs, (width,), ("embed",), constant(INITIAL_SCALE))

    def init_state(self, batch: int, dtype: jnp.dtype) -> ConvState:
        """The state of the depthwise convolution."""
        return self.depthwise.init_state(batch, dtype)

    def step(self, x: jax.Array, state: ConvState) -> tuple[jax.Array, ConvState]:
        """x [B, T, D] -> (y [B, T, D], state)."""
        y, state = self.depthwise.step(x, state)  # [B, T, D]
        y = self.down(jax.nn.gelu(self.up(self.norm(y)), approximate=False))
        return x + self.scale[...] * y, state

    def __call__(self, x: jax.Array) -> jax.Array:
        """A full sequence [B, T, D] from a fresh state."""
        return self.step(x, self.init_state(x.shape[0], x.dtype))[0]
