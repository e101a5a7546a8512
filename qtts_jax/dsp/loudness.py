"""Perceived loudness per critical band, and the loudness of the difference of two sounds.

The model is that of PESQ (ITU-T P.862, section 10.2) without what it does about time, level and
the line: power in bands of equal width on the Bark scale, Zwicker's loudness, small differences
masked, what was added weighed more than what was lost. Logarithms weigh the noise of a recording
like its speech; loudness does not, and noise that a decoder leaves between the harmonics, where
the recording has little, counts as added. All formulas are public; the bands are Traunmüller's
(JASA 88, 1990) and the threshold of hearing is Terhardt's (Hearing Research 1, 1979) instead of
tables.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.dsp.stft import OVERLAP, stft
from qtts_jax.errors import ConfigError

# Usual level of speech at full scale 1, as a root mean square, and how loud P.862 plays it.
SPEECH_LEVEL, SPEECH_DB = 0.06, 79.0
# Spectra of P.862 at 16 kHz.
WINDOW_SECONDS, BANDS, LOWEST_HZ, TOP_HZ = 0.032, 49, 20.0, 8000.0
# Of Zwicker's law: its exponent, and sones at the threshold (P.862 at 16 kHz).
_EXPONENT, _SONES = 0.23, 0.1866
# Part of the softer of two sounds by which they may differ unheard.
_MASKED = 0.25
# Of the asymmetry: power that is never missed, growth, least and largest factor.
_ADDED_POWER, _ADDED_GROWTH, _ADDED_LEAST, _ADDED_MOST = 50.0, 1.2, 3.0, 12.0
# Weight of asymmetric beside symmetric disturbance (P.862: 0.0309 against 0.1).
_ASYMMETRIC = 0.309


class Bark(NamedTuple):
    """Bands of equal width on the Bark scale.

    Attributes:
        filters: float32 [window / 2 + 1, bands], the share of each bin of a spectrum.
        threshold: float32 [bands], power of the threshold of hearing in quiet (0 dB is 1).
        width: Bark, of all bands together.
    """

    filters: np.ndarray
    threshold: np.ndarray
    width: float


def bark_bands(window: int, bands: int, sample_rate: int, top: float) -> Bark:
    """Bands from 20 Hz to `top` for spectra of `window` samples.

    Raises:
        ConfigError: there is nothing between 20 Hz and `top`, or `top` is above half the rate.
    """
    if not LOWEST_HZ < top <= sample_rate / 2:
        raise ConfigError(
            f"bands of loudness end between {LOWEST_HZ:g} Hz and half the sample rate of "
            f"{sample_rate}, not at {top:g} Hz; change the top."
        )
    low, high = (26.81 * f / (1960 + f) - 0.53 for f in (LOWEST_HZ, top))
    edges = np.linspace(low, high, 2 * bands + 1)
    hertz = 1960 * (edges + 0.53) / (26.28 - edges)
    spacing = sample_rate / window
    bins = np.arange(window // 2 + 1)[:, None] * spacing
    begin = np.maximum(bins - spacing / 2, hertz[None, :-2:2])
    end = np.minimum(bins + spacing / 2, hertz[None, 2::2])
    k = hertz[1::2] / 1000
    decibels = 3.64 * k**-0.8 - 6.5 * np.exp(-0.6 * (k - 3.3) ** 2) + 1e-3 * k**4
    filters = np.maximum(end - begin, 0) / spacing
    threshold = 10 ** (decibels / 10)
    return Bark(filters.astype(np.float32), threshold.astype(np.float32), high - low)


def bark_power(wave: jax.Array, window: int, bark: Bark) -> jax.Array:
    """Power in every band, hop window / 4: [B, N] -> float32 [B, T, bands], 0 dB is 1."""
    spectrum = stft(wave, window)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    # White noise of root mean square 1 has 3/8 window in each bin of a Hann window.
    whole = SPEECH_LEVEL**2 * 3 / 8 * window * (window / 2)
    scale = 10 ** (SPEECH_DB / 10) / whole
    return jnp.matmul(power * scale, bark.filters, precision=jax.lax.Precision.HIGHEST)


def loudness(power: jax.Array, bark: Bark) -> jax.Array:
    """Zwicker's loudness density of power [..., bands] in sone per Bark, 0 in silence."""
    scale = _SONES * (bark.threshold / 0.5) ** _EXPONENT
    return scale * ((0.5 + 0.5 * power / bark.threshold) ** _EXPONENT - 0.5**_EXPONENT)


def disturbance(decoded: jax.Array, real: jax.Array, sample_rate: int) -> jax.Array:
    """Perceived loudness difference: the mean over frames of 32 ms, in sones.

    Args:
        decoded, real: [B, N]; no gradient goes to `real`.
        sample_rate: Hz.

    Returns:
        float32 scalar.
    """
    window = OVERLAP * round(WINDOW_SECONDS * sample_rate / OVERLAP)
    bark = bark_bands(window, BANDS, sample_rate, min(TOP_HZ, sample_rate / 2))
    after = bark_power(decoded, window, bark)
    before = jax.lax.stop_gradient(bark_power(real, window, bark))
    degraded, reference = loudness(after, bark), loudness(before, bark)
    masked = _MASKED * jax.lax.stop_gradient(jnp.minimum(degraded, reference))
    away = jax.nn.relu(jnp.abs(degraded - reference) - masked)
    # A root has no gradient at 0.
    symmetric = jnp.sqrt(jnp.mean(jnp.square(away), -1) + 1e-8)
    ratio = jax.lax.stop_gradient((after + _ADDED_POWER) / (before + _ADDED_POWER))
    factor = ratio**_ADDED_GROWTH
    factor = jnp.where(factor < _ADDED_LEAST, 0.0, jnp.minimum(factor, _ADDED_MOST))
    asymmetric = jnp.mean(away * factor, -1)
    return bark.width * jnp.mean(symmetric + _ASYMMETRIC * asymmetric)


def loudness_spectra(
    wave: jax.Array, window: int, bands: int, sample_rate: int, top: float
) -> jax.Array:
    """Loudness density of every frame, hop window / 4: [B, N] -> float32 [B, T, bands]."""
    bark = bark_bands(window, bands, sample_rate, top)
    return loudness(bark_power(wave, window, bark), bark)
