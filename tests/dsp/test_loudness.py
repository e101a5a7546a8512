"""Loudness and loudness differences, against the formulas with loops in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.dsp.loudness import (
    SPEECH_DB,
    SPEECH_LEVEL,
    bark_bands,
    bark_power,
    disturbance,
    loudness,
    loudness_spectra,
)
from qtts_jax.errors import ConfigError

RATE, WINDOW, BANDS = 16000, 512, 49
heard_to_differ = jax.jit(disturbance, static_argnums=2)


def noise(seed=0, samples=4096, level=SPEECH_LEVEL):
    return level * np.random.default_rng(seed).standard_normal((2, samples)).astype(np.float32)


def bark(hertz):
    return 26.81 * hertz / (1960 + hertz) - 0.53


def test_bands_share_the_spectrum_and_are_equally_wide():
    bands = bark_bands(WINDOW, BANDS, RATE, 8000)
    assert bands.filters.shape == (257, 49)
    # All from 20 Hz on: of the bin of 15.6 to 46.9 Hz most, of the one below it nothing.
    whole = bands.filters.sum(1)
    np.testing.assert_allclose(whole[2:-1], 1, rtol=1e-5)
    np.testing.assert_allclose(whole[:2], [0, 26.875 / 31.25], rtol=1e-5)
    assert bands.width == pytest.approx(bark(8000) - bark(20))
    # The middle of the bins of a band, wide ones high up, on the Bark scale.
    middle = (bands.filters * np.arange(257)[:, None] * RATE / WINDOW).sum(0) / bands.filters.sum(0)
    expected = bark(20) + (np.arange(49) + 0.5) * bands.width / 49
    np.testing.assert_allclose(bark(middle)[10:], expected[10:], atol=0.15)


def test_threshold_is_lowest_where_ears_are_best():
    decibels = 10 * np.log10(bark_bands(WINDOW, BANDS, RATE, 8000).threshold)
    hertz = np.array(
        [1960 * (z + 0.53) / (26.28 - z) for z in np.linspace(bark(20), bark(8000), 99)[1::2]]
    )
    assert 3000 < hertz[decibels.argmin()] < 4000
    assert decibels[0] > 30
    # Terhardt's curve at 1 kHz: 3.64 - 6.5 exp(-0.6 * 2.3 ** 2) + 0.001.
    assert np.interp(1000, hertz, decibels) == pytest.approx(3.37, abs=0.1)


def test_speech_at_its_usual_level_is_as_loud_as_the_standard_plays_it():
    power = bark_power(
        jnp.asarray(noise(samples=1 << 16)), WINDOW, bark_bands(WINDOW, BANDS, RATE, 8000)
    )
    total = 10 * np.log10(np.asarray(power).sum(-1).mean())
    assert total == pytest.approx(SPEECH_DB, abs=0.2)


def test_loudness_is_nothing_in_silence_and_grows_as_zwicker_has_it():
    bands = bark_bands(WINDOW, BANDS, RATE, 8000)
    np.testing.assert_allclose(loudness(jnp.zeros(49), bands), 0, atol=1e-6)
    loud = np.asarray(loudness(jnp.asarray(bands.threshold * 1e6), bands))
    louder = np.asarray(loudness(jnp.asarray(bands.threshold * 1e7), bands))
    # Far above the threshold it is a power law.
    offset = 0.1866 * (bands.threshold / 0.5) ** 0.23 * 0.5**0.23
    np.testing.assert_allclose((louder + offset) / (loud + offset), 10**0.23, rtol=1e-4)


def test_disturbance_is_that_of_the_standard():
    real, decoded = noise(0), noise(1, level=0.03)
    bands = bark_bands(WINDOW, BANDS, RATE, 8000)
    powers = [
        np.asarray(bark_power(jnp.asarray(x), WINDOW, bands), np.float64) for x in (real, decoded)
    ]
    sones = [np.asarray(loudness(jnp.asarray(p), bands), np.float64) for p in powers]
    total = []
    for p, q, a, b in zip(*(x.reshape(-1, BANDS) for x in (*powers, *sones)), strict=True):
        squares = added = 0.0
        for i in range(BANDS):
            away = max(abs(a[i] - b[i]) - 0.25 * min(a[i], b[i]), 0)
            squares += away**2 / BANDS
            factor = ((q[i] + 50) / (p[i] + 50)) ** 1.2
            added += 0 if factor < 3 else away * min(factor, 12) / BANDS
        total.append(bands.width * (squares**0.5 + 0.309 * added))
    np.testing.assert_allclose(heard_to_differ(decoded, real, RATE), np.mean(total), rtol=1e-3)


def test_what_is_added_disturbs_more_than_what_is_missing():
    tone = 0.1 * np.sin(2 * np.pi * 300 * np.arange(8192) / RATE, dtype=np.float32)[None]
    dirty = tone + noise(level=0.003, samples=8192)[:1]
    assert heard_to_differ(dirty, tone, RATE) > 1.5 * heard_to_differ(tone, dirty, RATE)
    assert heard_to_differ(tone, tone, RATE) < 0.01


def test_silence_has_a_finite_gradient():
    still = jnp.zeros((1, 2048))
    gradient = jax.jit(jax.grad(disturbance), static_argnums=2)(
        still, noise(samples=2048)[:1], RATE
    )
    assert np.isfinite(gradient).all()


def test_spectra_are_the_loudness_of_every_frame():
    wave = jnp.asarray(noise())
    bands = bark_bands(WINDOW, 20, RATE, 4000)
    np.testing.assert_allclose(
        loudness_spectra(wave, WINDOW, 20, RATE, 4000),
        loudness(bark_power(wave, WINDOW, bands), bands),
    )


def test_bands_beyond_the_rate_are_refused():
    with pytest.raises(ConfigError, match="change the top"):
        bark_bands(WINDOW, BANDS, RATE, 9000)
