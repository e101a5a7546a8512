"""Discriminators of waveforms: per period (HiFi-GAN) and per spectrum window (EnCodec)."""

from qtts_jax.training.tokenizer.discriminators.ensemble import Discriminators
from qtts_jax.training.tokenizer.discriminators.period import PeriodDiscriminator
from qtts_jax.training.tokenizer.discriminators.spectrum import SpectrumDiscriminator

__all__ = ["Discriminators", "PeriodDiscriminator", "SpectrumDiscriminator"]
