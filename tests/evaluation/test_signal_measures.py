"""Pitch, codebooks and Opus."""

import numpy as np
import pytest

from qtts_jax.evaluation import pitch
from qtts_jax.evaluation.codebooks import usage

RATE = 16_000


def voice(hertz, seconds=0.6):
    t = np.arange(int(seconds * RATE)) / RATE
    harmonics = sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 9))
    return (0.1 * harmonics).astype(np.float32)


def test_pitch_of_a_known_voice():
    found = pitch.track(np.concatenate([voice(120), np.zeros(RATE // 2, np.float32)]), RATE)
    assert pitch.median(found) == pytest.approx(120, rel=0.01)
    assert np.isnan(found[-20:]).all()
    assert pitch.median(np.full(3, np.nan)) is None
    assert np.isnan(pitch.track(np.zeros(10, np.float32), RATE)).all()


def test_errors_of_two_tracks():
    nan = np.nan
    errors = pitch.compare(np.array([100, 200, nan, 100, nan]), np.array([200, 200, 100, nan, nan]))
    assert errors.cents == pytest.approx(np.sqrt((1200**2 + 0) / 2))
    assert errors.voicing == pytest.approx(2 / 5)
    assert pitch.compare(np.array([nan, 100.0]), np.array([100.0, nan])).cents is None


def test_use_and_perplexity_of_codebooks():
    codes = [np.array([[0, 0], [1, 0]]), np.array([[2, 0], [3, 1]])]
    found = usage(codes, 8)
    assert found["use"] == [4 / 8, 2 / 8]
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert found["perplexity"] == pytest.approx([4.0, np.exp(entropy)])
    assert usage([np.array([1, 1, 1])], 4) == {"use": [0.25], "perplexity": [1.0]}


def test_opus_keeps_time_and_tells_what_its_packets_take():
    av = pytest.importorskip("av")
    import librosa

    from qtts_jax.evaluation.opus import SAMPLE_RATE, _encode, round_trip

    wave = np.concatenate([voice(f, 0.5) for f in (110, 160, 220, 140)])
    decoded, bits = round_trip(wave, RATE, 16_000)
    assert decoded.shape == wave.shape
    packets, _ = _encode(av, librosa.resample(wave, orig_sr=RATE, target_sr=SAMPLE_RATE), 16_000)
    # 2 s in packets of 20 ms, and one for the delay.
    assert len(packets) == 101
    assert bits == pytest.approx(sum(8 * len(p) for p in packets) / 2.0)
    # Below 3 ms apart: the delay of the codec (6.5 ms) has been taken out.
    shifts = range(-200, 201)
    best = max(shifts, key=lambda s: np.dot(np.roll(wave, s), decoded))
    assert abs(best) < 0.003 * RATE
    assert round_trip(wave, RATE, 6_000)[1] < bits
