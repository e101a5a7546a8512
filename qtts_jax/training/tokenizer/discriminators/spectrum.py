"""Multi-scale STFT discriminator (EnCodec, arXiv:2210.13438, section 3.4 and figure 2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.dsp.stft import stft
from qtts_jax.training.tokenizer.config import DiscriminatorConfig
from qtts_jax.training.tokenizer.discriminators.weight_norm import WeightNormConv

# (time, frequency)
KERNEL, STRIDE, LAST_KERNEL, DILATIONS, SLOPE = (3, 9), (1, 2), (3, 3), (1, 2, 4), 0.2


class SpectrumDiscriminator(nnx.Module):
    """Two-dimensional convolutions over the real and imaginary parts of one spectrum."""

    def __init__(self, config: DiscriminatorConfig, window: int, *, rngs: nnx.Rngs) -> None:
        self.window, width = window, config.spectrum_channels
        layers = [WeightNormConv(2, width, KERNEL, rngs=rngs)]
        layers += [
            WeightNormConv(width, width, KERNEL, stride=STRIDE, dilation=(d, 1), rngs=rngs)
            for d in DILATIONS
        ]
        layers.append(WeightNormConv(width, width, LAST_KERNEL, rngs=rngs))
        self.layers = nnx.List(layers)
        self.output = WeightNormConv(width, 1, LAST_KERNEL, rngs=rngs)

    def __call__(self, wave: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        """wave [B, N] -> logits [B, T, W', 1] and the outputs of all layers before."""
        # By the root of the window energy, so that white noise has the same level at every window.
        spectrum = stft(wave, self.window) * (8 / (3 * self.window)) ** 0.5
        x = jnp.stack([spectrum.real, spectrum.imag], axis=-1)
        features = []
        for i, layer in enumerate(self.layers):
            with jax.named_scope(f"layer_{i}"):
                x = jax.nn.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return self.output(x), features
