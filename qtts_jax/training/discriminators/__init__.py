"""Discriminators of waveforms: per period (HiFi-GAN) and per spectrum window (EnCodec)."""

from qtts_jax.training.discriminators.ensemble import Discriminators
from qtts_jax.training.discriminators.period import PeriodDiscriminator
from qtts_jax.training.discriminators.spectrum import SpectrumDiscriminator

__all__ = ["Discriminators", "PeriodDiscriminator", "SpectrumDiscriminator"]
