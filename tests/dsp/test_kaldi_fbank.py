"""Kaldi's filter bank: the official values, an independent formula, odd input."""

import numpy as np
import pytest

from qtts_jax.dsp.kaldi_fbank import FbankConfig, fbank, mel_filters, povey_window
from qtts_jax.errors import AudioError
from tests.support.helpers import assert_close

CONFIG = FbankConfig()


@pytest.fixture(scope="module")
def wave(golden, golden_index, detweights):
    n = int(golden("frontends")["n"][0])
    return detweights.wave(golden_index["seed"], "front/w16k", n, 16000)


def test_fbank_is_the_official_one(golden, wave):
    features = fbank(wave)
    assert features.dtype == np.float32
    assert_close(features, golden("frontends")["kaldi_fbank"])


def slow_fbank(wave):
    """The definition with plain loops and a Fourier sum."""
    rows = []
    for start in range(0, len(wave) - 400 + 1, 160):
        frame = wave[start : start + 400].astype(np.float64)
        frame = frame - frame.mean()
        shaped = [frame[0] - 0.97 * frame[0]]
        shaped += [frame[i] - 0.97 * frame[i - 1] for i in range(1, 400)]
        shaped *= povey_window(400)
        turns = np.outer(np.arange(257), np.arange(400)) / 512
        power = np.abs(np.exp(-2j * np.pi * turns) @ shaped) ** 2
        low, high = 1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 8000 / 700)
        energies = []
        for m in range(80):
            left, centre, right = (low + (high - low) * (m + i) / 81 for i in range(3))
            total = 0.0
            for k in range(256):
                at = 1127 * np.log(1 + k * 16000 / 512 / 700)
                if left < at < right:
                    up, down = (at - left) / (centre - left), (right - at) / (right - centre)
                    total += power[k] * min(up, down)
            energies.append(np.log(max(total, 2.0**-23)))
        rows.append(energies)
    return np.array(rows)


def test_fbank_is_its_definition():
    wave = np.random.default_rng(3).normal(0, 0.1, 1003).astype(np.float32)
    assert fbank(wave).shape == (CONFIG.frames(1003), 80) == (4, 80)
    np.testing.assert_allclose(fbank(wave), slow_fbank(wave), atol=1e-4)


def test_a_constant_wave_has_the_floor_energy():
    assert np.allclose(fbank(np.full(800, 0.3, np.float32)), np.log(2.0**-23))


def test_only_whole_frames_count():
    assert [CONFIG.frames(n) for n in (0, 399, 400, 559, 560)] == [0, 0, 1, 1, 2]
    wave = np.random.default_rng(0).normal(0, 0.1, 559).astype(np.float32)
    np.testing.assert_array_equal(fbank(wave), fbank(wave[:400]))


def test_filters_do_not_reach_the_last_bin():
    bank = mel_filters(CONFIG)
    assert bank.shape == (257, 80)
    assert not bank[-1].any()
    assert bank.any(axis=0).all()
    assert np.all((bank >= 0) & (bank <= 1))


def test_other_rates_follow_the_configuration():
    config = FbankConfig(sample_rate=8000, n_mels=23, win=200, hop=80, fmax=4000.0)
    assert config.n_fft == 256
    assert fbank(np.ones(1000, np.float32), config).shape == (11, 23)


@pytest.mark.parametrize("samples", [0, 399])
def test_less_than_a_frame_is_refused(samples):
    with pytest.raises(AudioError, match="at least 400 samples"):
        fbank(np.zeros(samples, np.float32))
