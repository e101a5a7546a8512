"""Differentiable short-time spectra for the losses and discriminators of the tokenizer."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.dsp.mel import MelConfig, hann_window, mel_filters
from qtts_jax.errors import ConfigError

# Hops per window, as in DAC and EnCodec.
OVERLAP = 4


def frames(wave: jax.Array, window: int) -> jax.Array:
    """Overlapping frames, one every window / 4 samples, the first one starting at sample 0.

    The frames are concatenated from whole hops, so that the backward pass adds slices; a gather
    would be scattered back sample by sample.

    Args:
        wave: [B, N] float; N is filled up with zeros to whole hops, and to one window at least.

    Returns:
        [B, T, window].

    Raises:
        ConfigError: the window is no multiple of 4.
    """
    if window % OVERLAP:
        raise ConfigError(
            f"a spectrum window of {window} samples is no multiple of {OVERLAP}; choose another."
        )
    hop = window // OVERLAP
    batch, samples = wave.shape
    hops = max(-(-samples // hop), OVERLAP)
    wave = jnp.pad(wave, ((0, 0), (0, hops * hop - samples)))
    pieces = wave.reshape(batch, hops, hop)
    count = hops - OVERLAP + 1
    return jnp.concatenate([pieces[:, i : i + count] for i in range(OVERLAP)], axis=-1)


def stft(wave: jax.Array, window: int) -> jax.Array:
    """Complex spectrum under a periodic Hann window, hop window / 4, no padding at the start.

    Args:
        wave: [B, N].

    Returns:
        complex64 [B, T, window / 2 + 1].
    """
    taper = np.hanning(window + 1)[:-1].astype(np.float32)
    return jnp.fft.rfft(frames(wave.astype(jnp.float32), window) * taper, axis=-1)


def log10_mel(
    wave: jax.Array,
    window: int,
    mels: int,
    sample_rate: int,
    quiet: float = 0.0,
    top: float | None = None,
) -> jax.Array:
    """log10 of the mel magnitudes (slaney filters), at least 1e-5 each.

    Args:
        wave: [B, N].
        quiet: what is below white noise of this root mean square counts as that noise.
        top: Hz, upper edge of the filters; None for the whole band.

    Returns:
        float32 [B, T, mels].
    """
    config = MelConfig(
        sample_rate=sample_rate,
        n_fft=window,
        hop=window // OVERLAP,
        win=window,
        n_mels=mels,
        fmax=top or sample_rate / 2,
    )
    spectrum = jnp.fft.rfft(frames(wave.astype(jnp.float32), window) * hann_window(config), axis=-1)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    # The root has no gradient at 0; the floor keeps it finite in digital silence.
    magnitude = jnp.sqrt(power + config.power_floor)
    mel = jnp.matmul(magnitude, mel_filters(config), precision=jax.lax.Precision.HIGHEST)
    # White noise has sqrt(3/8 window) in every bin of a Hann window; filters have area 1 over Hz.
    noise = quiet * (3 / 8 * window) ** 0.5 * window / sample_rate
    return jnp.log10(jnp.maximum(mel, max(config.mel_floor, noise)))


def envelope_spectra(
    wave: jax.Array, window: int, steps: int, spectra: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """The short spectra of every code frame, each of the `window` samples up to its own end.

    Args:
        wave: [B, N], N whole code frames of `steps` quarters of a window.
        spectra: gives [B, M] the spectra [B, T, bins] of windows, one every quarter of them.

    Returns:
        float32 [B, code frames, steps * bins].
    """
    before = window - window // OVERLAP
    found = spectra(jnp.pad(wave, ((0, 0), (before, 0))))
    return found.reshape(wave.shape[0], -1, steps * found.shape[-1])
