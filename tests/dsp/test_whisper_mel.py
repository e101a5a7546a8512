"""Log-mel features of the 25 Hz encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.dsp.whisper_mel import MARGIN, frames_of, log_power, normalize, padded_wave
from qtts_jax.errors import AudioError
from tests.support.helpers import assert_close

SEED, HOP, FRAMES_PER_CODE = 1234, 160, 4


@jax.jit
def features(padded):
    power = log_power(padded, 128)
    return normalize(power, jnp.max(power))


def whole(wave):
    return np.asarray(features(padded_wave(wave, FRAMES_PER_CODE)))


@pytest.mark.parametrize("item", range(2))
def test_features_equal_the_official_ones(golden, detweights, item):
    file = golden("tok25_encode")
    wave = detweights.wave(SEED, f"tok25/wave{item}", int(file[f"n{item}"][0]), 16000)
    assert_close(whole(wave)[::3], file[f"mel{item}"].T)


def test_a_stretch_gives_the_frames_of_the_whole(detweights):
    padded = padded_wave(detweights.wave(1, "x", 5000, 16000), FRAMES_PER_CODE)
    frames = (padded.size - 2 * MARGIN) // HOP
    assert frames == frames_of(5000, FRAMES_PER_CODE) == 32
    power = jax.jit(log_power, static_argnums=1)
    rows = power(np.stack([padded, padded[::-1]]), 80)
    assert rows.shape == (2, frames, 80)
    stretch = padded[8 * HOP : 20 * HOP + 2 * MARGIN]
    np.testing.assert_allclose(power(stretch, 80), rows[0, 8:20], atol=1e-4)


def test_silence_is_flat_and_the_range_is_eight_decades():
    assert (whole(np.zeros(1000, np.float32)) == (-10 + 4) / 4).all()
    wave = np.zeros(16000, np.float32)
    wave[8000:] = np.sin(np.arange(8000))
    mel = whole(wave)
    assert np.ptp(mel) == pytest.approx(2)
    assert (mel[:40] == mel.min()).all()


@pytest.mark.parametrize(("samples", "frames"), [(1, 4), (640, 4), (641, 8), (1280, 8)])
def test_frames_are_whole_codes(samples, frames):
    assert frames_of(samples, FRAMES_PER_CODE) == frames
    assert whole(np.ones(samples, np.float32)).shape == (frames, 128)


def test_empty_audio_is_refused():
    with pytest.raises(AudioError, match="at least one"):
        padded_wave(np.zeros(0), FRAMES_PER_CODE)
    with pytest.raises(AudioError, match=r"\[2, 5\]"):
        padded_wave(np.zeros((2, 5)), FRAMES_PER_CODE)


def test_gradients_reach_the_samples_under_a_frame_only():
    wave = jnp.asarray(np.random.default_rng(0).normal(size=2 * MARGIN + 8 * HOP), jnp.float32)
    moved = np.asarray(jax.jit(jax.grad(lambda x: log_power(x, 80)[3].sum()))(wave))
    inside = slice(3 * HOP, 3 * HOP + 2 * MARGIN)
    assert (moved[: inside.start] == 0).all() and (moved[inside.stop :] == 0).all()
    assert np.abs(moved[inside]).max() > 0
