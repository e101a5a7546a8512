"""Corrections of decoded speech by `experiments/nano/band_errors.py`."""

import importlib

import numpy as np
import pytest

RATE = 16_000
TIME = np.arange(2 * RATE) / RATE


@pytest.fixture(scope="module")
def bands():
    return importlib.import_module("experiments.nano.band_errors")


def tones(low, high):
    """300 Hz and 3 kHz at these levels, float32 [2 s]."""
    wave = low * np.sin(2 * np.pi * 300 * TIME) + high * np.sin(2 * np.pi * 3000 * TIME)
    return wave.astype(np.float32)


def test_only_what_lies_below_is_taken_from_the_recording(bands):
    corrected = bands.below(1000)(tones(0.3, 0.2), tones(0.1, 0.05))
    assert corrected.dtype == np.float32
    inside = slice(1024, -1024)  # A tone that begins is not only one of its frequency.
    np.testing.assert_allclose(corrected[inside], tones(0.3, 0.05)[inside], atol=2e-3)


def test_the_envelope_is_the_recordings_and_the_tones_are_the_decoders(bands):
    recorded = tones(0.3, 0.2)
    decoded = np.random.default_rng(0).standard_normal(len(TIME)).astype(np.float32) / 20
    corrected = bands.envelope(recorded, decoded)
    assert corrected.shape == decoded.shape
    spectrum = np.abs(np.fft.rfft(corrected)) ** 2
    hertz = np.fft.rfftfreq(len(TIME), 1 / RATE)
    near = (np.abs(hertz - 300) < 100) | (np.abs(hertz - 3000) < 200)
    assert spectrum[near].sum() > 0.95 * spectrum.sum()
    # Noise in a band of two tones' place, and no tone.
    assert spectrum.max() < 0.05 * spectrum.sum()
    # Bands overlap, so that a tone of one of them is spread over its neighbours: within 3 dB.
    assert 0.5 < np.mean(np.square(corrected)) / np.mean(np.square(recorded)) < 2


def test_what_is_right_stays(bands):
    wave = tones(0.3, 0.2)
    for correct in (bands.below(500), bands.envelope):
        np.testing.assert_allclose(correct(wave, wave), wave, atol=1e-5)
