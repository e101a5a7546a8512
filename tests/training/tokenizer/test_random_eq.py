"""Random colours of recordings."""

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.training.tokenizer.random_eq import random_eq

RATE = 24000


def tones(hertz):
    time = np.arange(RATE) / RATE
    return jnp.asarray(np.stack([0.1 * np.sin(2 * np.pi * f * time) for f in hertz]), jnp.float32)


def test_every_row_has_gains_of_its_own_within_the_bound():
    audio = jnp.repeat(tones([750.0]), 64, axis=0)
    out = np.asarray(random_eq(audio, jax.random.key(0), 6.0))
    gains = 20 * np.log10(np.abs(out).max(1) / 0.1)
    assert len(set(np.round(gains, 3))) == 64
    assert np.abs(gains).max() < 6.01
    assert np.abs(gains).max() > 4


def test_a_tone_of_an_octave_keeps_its_shape_and_place():
    audio = tones([94.0, 750.0, 3000.0, 11000.0])
    out = np.asarray(random_eq(audio, jax.random.key(1), 6.0))
    gain = (out * audio).sum(1) / np.square(audio).sum(1)
    np.testing.assert_allclose(out, gain[:, None] * audio, atol=1e-5)
    # 750 Hz is the fourth of eight octaves' ends, of which it has the gain.
    drawn = jax.random.uniform(jax.random.key(1), (4, 8), minval=-1.0) * 6
    np.testing.assert_allclose(20 * np.log10(gain[1]), drawn[1, 3], atol=1e-3)


def test_no_gain_changes_nothing():
    audio = tones([440.0])
    np.testing.assert_allclose(random_eq(audio, jax.random.key(2), 0.0), audio, atol=1e-6)
