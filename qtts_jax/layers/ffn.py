"""Feed-forward layers of the transformer block."""

from __future__ import annotations

import jax
from flax import nnx

from qtts_jax.configs.tts import TransformerConfig
from qtts_jax.layers.linear import Linear
from qtts_jax.layers.param import normal


class SwiGLU(nnx.Module):
    """down(silu(gate x) * up x), gate and up merged into one [2, F, D] matrix."""

    def __init__(self, c: TransformerConfig, *, rngs: nnx.Rngs) -> None:
        init = normal(c.init_std)
        self.gate_up = Linear(
            (c.width,), (2, c.ffn_width), ("embed",), (None, "ffn"), init=init, rngs=rngs
        )
        self.down = Linear((c.ffn_width,), (c.width,), ("ffn",), ("embed",), init=init, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., D] -> [..., D]."""
        y = self.gate_up(x)  # [..., 2, F]
        return self.down(jax.nn.silu(y[..., 0, :]) * y[..., 1, :])


class GeluFFN(nnx.Module):
    """down(gelu(up x)) without biases, exact (erf) GELU (upstream `MimiMLP`)."""

    def __init__(self, c: TransformerConfig, *, rngs: nnx.Rngs) -> None:
        init = normal(c.init_std)
        self.up = Linear((c.width,), (c.ffn_width,), ("embed",), ("ffn",), init=init, rngs=rngs)
        self.down = Linear((c.ffn_width,), (c.width,), ("ffn",), ("embed",), init=init, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., D] -> [..., D]."""
        return self.down(jax.nn.gelu(self.up(x), approximate=False))
