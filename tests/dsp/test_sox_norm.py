"""SoX's peak normalisation: the official values, edge cases, and the program where there is one."""

import shutil
import subprocess

import numpy as np
import pytest

from qtts_jax.dsp.sox_norm import normalize_peak

PEAK = 10 ** (-6 / 20)


def test_norm_is_the_official_one(golden, golden_index, detweights):
    file = golden("frontends")
    wave = detweights.wave(golden_index["seed"], "front/w16k", int(file["n"][0]), 16000)
    normal = normalize_peak(wave)
    assert normal.dtype == np.float32
    np.testing.assert_array_equal(normal, file["sox_norm"])
    np.testing.assert_allclose(normal, wave * file["sox_gain"], atol=2**-24)


@pytest.mark.parametrize("scale", [1e-6, 0.01, 0.4])
def test_the_peak_is_at_minus_six_decibels(scale):
    wave = np.random.default_rng(0).uniform(-scale, scale, 500).astype(np.float32)
    assert np.abs(normalize_peak(wave)).max() == pytest.approx(PEAK, abs=1e-6)


def test_silence_stays_silent_and_overload_is_clipped_first():
    assert not normalize_peak(np.zeros(10, np.float32)).any()
    assert normalize_peak(np.zeros(0, np.float32)).shape == (0,)
    loud = normalize_peak(np.array([2.0, -0.5], np.float32))
    np.testing.assert_allclose(loud, [PEAK, -PEAK / 2], atol=1e-6)


@pytest.mark.skipif(shutil.which("sox") is None, reason="needs the sox program")
@pytest.mark.parametrize("scale", [1e-9, 1e-6, 0.1, 0.8])
def test_norm_is_that_of_the_program(scale):
    wave = (np.random.default_rng(1).standard_normal(2000) * scale).astype(np.float32)
    raw = ["-t", "f32", "-r", "16000", "-c", "1", "-"]
    command = ["sox", "-V1", *raw, *raw, "norm", "-6.000000"]
    out = subprocess.run(command, input=wave.tobytes(), capture_output=True, check=True).stdout
    np.testing.assert_array_equal(normalize_peak(wave), np.frombuffer(out, np.float32))
