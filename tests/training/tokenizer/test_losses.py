"""Every loss of the tokenizer against its formula, written again with loops in numpy."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from qtts_jax.dsp.stft import frames, stft
from qtts_jax.errors import ConfigError
from qtts_jax.training.tokenizer import losses

RATE = 16000


mel_loss = jax.jit(losses.mel_loss, static_argnums=(2, 3))
spectrum = jax.jit(stft, static_argnums=1)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def waves(rng, rows, samples, scale=0.3):
    return (scale * rng.standard_normal((rows, samples))).astype(np.float32)


def spectra(wave, window):
    """Spectrum of every frame [window] of one row, hop window / 4, zeros behind the end."""
    hop = window // 4
    hops = max(-(-len(wave) // hop), 4)
    wave = np.concatenate([wave, np.zeros(hops * hop - len(wave))])
    hann = [0.5 - 0.5 * np.cos(2 * np.pi * n / window) for n in range(window)]
    starts = range(0, len(wave) - window + 1, hop)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(window // 2 + 1), np.arange(window)) / window)
    return np.array([turns @ (wave[s : s + window] * hann) for s in starts])


@pytest.mark.parametrize("samples", [256, 250, 40])
def test_spectrum_is_a_fourier_sum_of_every_frame(samples, rng):
    wave = waves(rng, 2, samples)
    expected = np.stack([spectra(row, 64) for row in wave])
    np.testing.assert_allclose(spectrum(wave, 64), expected, atol=1e-4)


def test_frames_overlap_by_three_quarters():
    cut = frames(jnp.arange(16.0)[None], 8)
    assert cut.shape == (1, 5, 8)
    np.testing.assert_array_equal(cut[0, :, 0], [0, 2, 4, 6, 8])


def test_window_that_four_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="multiple of 4"):
        stft(jnp.zeros((1, 100)), 30)


def test_mel_loss_sums_the_scales(rng):
    a, b = waves(rng, 2, 600), waves(rng, 2, 600, scale=0.05)
    expected = 0.0
    scales = ((64, 6), (256, 20), (256, 10, 2000))
    for window, mels, top in ((64, 6, RATE / 2), (256, 20, RATE / 2), (256, 10, 2000)):
        bank = librosa.filters.mel(sr=RATE, n_fft=window, n_mels=mels, fmin=0, fmax=top)
        logs = [
            [np.log10(np.maximum(np.abs(spectra(row, window)) @ bank.T, 1e-5)) for row in wave]
            for wave in (a, b)
        ]
        expected += np.mean(np.abs(np.array(logs[0]) - np.array(logs[1])))
    actual = mel_loss(a, b, scales, RATE)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_mel_loss_is_zero_for_the_same_audio_and_has_a_gradient_in_silence(rng):
    loss = jax.jit(jax.value_and_grad(lambda a, b: losses.mel_loss(a, b, ((64, 6),), RATE)))
    same = waves(rng, 1, 300)
    assert loss(same, same)[0] < 1e-6
    gradient = np.asarray(loss(np.zeros_like(same), same)[1])
    assert np.isfinite(gradient).all()


def test_discriminator_loss_is_the_hinge_of_both_sides(rng):
    real, fake = (
        [waves(rng, 3, 5, 2.0), waves(rng, 3, 2, 2.0)],
        [waves(rng, 3, 5, 2.0), waves(rng, 3, 2, 2.0)],
    )
    terms = []
    for r, f in zip(real, fake, strict=True):
        terms.append(
            np.mean([max(0, 1 - x) for x in r.ravel()])
            + np.mean([max(0, 1 + x) for x in f.ravel()])
        )
    actual = losses.discriminator_loss([jnp.asarray(x) for x in real], list(map(jnp.asarray, fake)))
    np.testing.assert_allclose(actual, np.mean(terms), rtol=1e-5)


def test_adversarial_loss_is_minus_the_mean_logit_of_each_discriminator(rng):
    fake = [waves(rng, 3, 50), waves(rng, 2, 7)]
    expected = -np.mean([x.mean() for x in fake])
    np.testing.assert_allclose(losses.adversarial_loss(fake), expected, rtol=1e-5)


def test_feature_loss_is_relative_and_leaves_the_real_side_alone(rng):
    real = [[waves(rng, 2, 9), waves(rng, 2, 5, 40.0)], [waves(rng, 1, 3)]]
    fake = [[waves(rng, 2, 9), waves(rng, 2, 5, 40.0)], [waves(rng, 1, 3)]]
    terms = [
        np.abs(f - r).mean() / np.abs(r).mean()
        for rs, fs in zip(real, fake, strict=True)
        for r, f in zip(rs, fs, strict=True)
    ]
    np.testing.assert_allclose(losses.feature_loss(real, fake), np.mean(terms), rtol=1e-5)
    gradient = jax.grad(losses.feature_loss)(jax.tree.map(jnp.asarray, real), fake)
    assert not any(np.any(g) for g in jax.tree.leaves(gradient))


def test_commitment_moves_the_residuals_towards_the_entries(rng):
    residuals, entries = rng.standard_normal((2, 2, 3, 4, 5)).astype(np.float32)
    expected = sum((r - e) ** 2 for r, e in zip(residuals.ravel(), entries.ravel(), strict=True))
    value, (to_residuals, to_entries) = jax.value_and_grad(losses.commitment_loss, (0, 1))(
        jnp.asarray(residuals), jnp.asarray(entries)
    )
    np.testing.assert_allclose(value, expected / residuals.size, rtol=1e-5)
    np.testing.assert_allclose(
        to_residuals, 2 * (residuals - entries) / residuals.size, rtol=1e-5, atol=1e-7
    )
    assert not np.any(to_entries)


def test_teacher_loss_is_one_minus_the_mean_cosine(rng):
    a, b = rng.standard_normal((2, 2, 6, 4)).astype(np.float32)
    cosines = [
        np.dot(x, y) / np.sqrt(np.dot(x, x) * np.dot(y, y))
        for x, y in zip(a.reshape(-1, 4), b.reshape(-1, 4), strict=True)
    ]
    np.testing.assert_allclose(losses.teacher_loss(a, b), 1 - np.mean(cosines), rtol=1e-5)
    np.testing.assert_allclose(losses.teacher_loss(a, 3 * a), 0, atol=1e-6)
    gradient = jax.grad(losses.teacher_loss)(jnp.zeros((1, 2, 4)), jnp.asarray(b[:1, :2]))
    assert np.isfinite(gradient).all()
