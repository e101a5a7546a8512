"""The one codebook of the 25 Hz tokenizer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tokenizer_25hz import Encoder25HzConfig
from qtts_jax.layers.linear import Linear
from qtts_jax.layers.param import constant, normal, param
from qtts_jax.layers.rvq import nearest


class VectorQuantizer(nnx.Module):
    """Euclidean codebook with the moving averages it is trained by (arXiv:1711.00937, appendix A).

    Unlike in the 12 Hz tokenizer the entries themselves are stored, beside the sums and
    counts that the next update starts from. Upstream:
    `DistributedGroupResidualVectorQuantization` of one group and one codebook.
    """

    def __init__(self, config: Encoder25HzConfig, *, rngs: nnx.Rngs) -> None:
        c, outer, inner = config, ("embed",), ("code",)
        projected = c.codebook_width != c.width
        self.input_projection, self.output_projection = (
            Linear((i,), (o,), i_axes, o_axes, bias=True, rngs=rngs) if projected else None
            for i, o, i_axes, o_axes in (
                (c.width, c.codebook_width, outer, inner),
                (c.codebook_width, c.width, inner, outer),
            )
        )
        shape = (c.entries, c.codebook_width)
        self.codebook = param(rngs, shape, ("entry", "code"), normal(1.0))
        self.embed_sum = param(rngs, shape, ("entry", "code"), normal(1.0))
        self.usage = param(rngs, shape[:1], ("entry",), constant(0.0))
        self.initialized = param(rngs, (1,), (None,), constant(1.0))

    def encode(self, x: jax.Array) -> jax.Array:
        """x [..., D] -> index of the nearest entry [...] int32, found in float32."""
        x = x if self.input_projection is None else self.input_projection(x)
        return nearest(x.astype(jnp.float32), self.codebook[...].astype(jnp.float32))

    def decode(self, codes: jax.Array) -> jax.Array:
        """codes [...] int -> [..., D]."""
        x = self.codebook[...][codes]
        return x if self.output_projection is None else self.output_projection(x)
