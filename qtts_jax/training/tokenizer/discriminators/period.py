"""Multi-period discriminator (HiFi-GAN, arXiv:2010.05646, section 2.3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.training.tokenizer.config import DiscriminatorConfig
from qtts_jax.training.tokenizer.discriminators.weight_norm import WeightNormConv

KERNEL, STRIDE, LAST_KERNEL, SLOPE = 5, 3, 3, 0.1


class PeriodDiscriminator(nnx.Module):
    """Convolutions over every period-th sample.

    The published form is a two-dimensional convolution whose kernel is one wide; here the columns
    are rows of the batch of a one-dimensional convolution, which is the same sum.
    """

    def __init__(self, config: DiscriminatorConfig, period: int, *, rngs: nnx.Rngs) -> None:
        self.period = period
        widths = (1, *config.period_channels)
        last = len(config.period_channels) - 1
        self.layers = nnx.List(
            WeightNormConv(
                widths[i],
                widths[i + 1],
                (KERNEL,),
                stride=(1 if i == last else STRIDE,),
                rngs=rngs,
            )
            for i in range(last + 1)
        )
        self.output = WeightNormConv(widths[-1], 1, (LAST_KERNEL,), rngs=rngs)

    def __call__(self, wave: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        """wave [B, N] -> logits [B * period, T, 1] and the outputs of all layers before.

        N is padded to a multiple of the period by reflection at the end.
        """
        batch, samples = wave.shape
        wave = jnp.pad(wave, ((0, 0), (0, -samples % self.period)), mode="reflect")
        x = wave.reshape(batch, -1, self.period).swapaxes(1, 2).reshape(batch * self.period, -1, 1)
        features = []
        for i, layer in enumerate(self.layers):
            with jax.named_scope(f"layer_{i}"):
                x = jax.nn.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return self.output(x), features
