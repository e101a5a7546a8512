"""All discriminators of one training as one module."""

from __future__ import annotations

import jax
from flax import nnx

from qtts_jax.training.tokenizer.config import DiscriminatorConfig
from qtts_jax.training.tokenizer.discriminators.period import PeriodDiscriminator
from qtts_jax.training.tokenizer.discriminators.spectrum import SpectrumDiscriminator


class Discriminators(nnx.Module):
    """One discriminator per period and one per spectrum window."""

    def __init__(self, config: DiscriminatorConfig, *, rngs: nnx.Rngs) -> None:
        self.periods = nnx.List(PeriodDiscriminator(config, p, rngs=rngs) for p in config.periods)
        self.spectra = nnx.List(SpectrumDiscriminator(config, w, rngs=rngs) for w in config.windows)

    def __call__(self, wave: jax.Array) -> tuple[list[jax.Array], list[list[jax.Array]]]:
        """wave [B, N] -> logits and layer outputs of every discriminator, periods first."""
        logits, features = [], []
        for kind, members in (("period", self.periods), ("spectrum", self.spectra)):
            for i, member in enumerate(members):
                with jax.named_scope(f"{kind}_{i}"):
                    logit, layers = member(wave)
                logits.append(logit)
                features.append(layers)
        return logits, features
