"""Losses of the tokenizer as pure functions of arrays; every one is a float32 scalar.

Lists of arrays hold one entry per discriminator (and one per layer inside, for features). All
means are over the batch and everything else, so the loss of a sharded batch equals that of the
whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from qtts_jax.dsp.stft import log10_mel

Features = Sequence[Sequence[jax.Array]]


def mel_loss(
    decoded: jax.Array,
    real: jax.Array,
    scales: Sequence[tuple[int, ...]],
    sample_rate: int,
    noise_floor: float = 0.0,
) -> jax.Array:
    """Sum over scales of the mean |log10 mel(decoded) - log10 mel(real)|.

    Source: DAC (arXiv:2306.06546, section 3.4).

    Args:
        decoded, real: [B, N].
        scales: window (samples), number of mel bins and, for a part of the band, its upper edge
            in Hz.
        sample_rate: Hz.
        noise_floor: root mean square of the white noise below which spectra do not differ (see
            `log10_mel`).
    """
    total = jnp.zeros((), jnp.float32)
    for window, mels, *top in scales:
        a, b = (
            log10_mel(wave, window, mels, sample_rate, noise_floor, *top)
            for wave in (decoded, real)
        )
        total += _mean_abs(a - b)
    return total


def spectrum_loss(predicted: jax.Array, spectra: jax.Array) -> jax.Array:
    """Mean squared error of the spectra that a head predicts from the quantized vectors.

    Args:
        predicted, spectra: [B, T, S] as `envelope_spectra`; no gradient goes to `spectra`.
    """
    away = predicted.astype(jnp.float32) - jax.lax.stop_gradient(spectra.astype(jnp.float32))
    return jnp.mean(jnp.square(away))


def discriminator_loss(real: Sequence[jax.Array], fake: Sequence[jax.Array]) -> jax.Array:
    """Hinge: mean over discriminators of mean(max(0, 1 - real)) + mean(max(0, 1 + fake)).

    Source: EnCodec (arXiv:2210.13438, section 3.4).

    Args:
        real, fake: logits of recorded and decoded audio, any shapes.
    """
    terms = [
        _mean(jax.nn.relu(1 - r.astype(jnp.float32)))
        + _mean(jax.nn.relu(1 + f.astype(jnp.float32)))
        for r, f in zip(real, fake, strict=True)
    ]
    return jnp.mean(jnp.stack(terms))


def adversarial_loss(fake: Sequence[jax.Array]) -> jax.Array:
    """The generator's side of the hinge: minus the mean logit, averaged over discriminators.

    The linear form (geometric GAN, arXiv:1705.02894) instead of max(0, 1 - logit): it still has
    a gradient where the discriminator is fooled.

    Args:
        fake: logits of decoded audio, any shapes.
    """
    return jnp.mean(jnp.stack([-_mean(f) for f in fake]))


def feature_loss(real: Features, fake: Features) -> jax.Array:
    """Mean over all layers of mean |fake - real| / mean |real|.

    Source: EnCodec (arXiv:2210.13438, equation 2): relative, so the scale of a layer has no
    influence.

    Args:
        real, fake: per discriminator the outputs of its layers; no gradient goes to `real`.
    """
    terms = []
    for real_layers, fake_layers in zip(real, fake, strict=True):
        for r, f in zip(real_layers, fake_layers, strict=True):
            r = jax.lax.stop_gradient(r.astype(jnp.float32))
            terms.append(_mean_abs(f.astype(jnp.float32) - r) / jnp.maximum(_mean_abs(r), 1e-5))
    return jnp.mean(jnp.stack(terms))


def commitment_loss(residuals: jax.Array, entries: jax.Array) -> jax.Array:
    """Mean squared distance of every residual to its entry; the gradient moves the residual only.

    Source: VQ-VAE (arXiv:1711.00937, equation 3), averaged over the codebooks as in EnCodec.

    Args:
        residuals: [B, T, Q, d] input of each codebook.
        entries: [B, T, Q, d] the entry it chose.
    """
    away = residuals.astype(jnp.float32) - jax.lax.stop_gradient(entries.astype(jnp.float32))
    return jnp.mean(jnp.square(away))


def teacher_loss(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """One minus the mean cosine between the frames of student and teacher: 0 ... 2.

    Source: Mimi (arXiv:2410.00037, section 3.3), which distils WavLM into its first codebook.

    Args:
        student, teacher: [B, T, D]; no gradient goes to `teacher`.
    """
    a = student.astype(jnp.float32)
    b = jax.lax.stop_gradient(teacher.astype(jnp.float32))
    # max(., 1e-12) under the root: a frame of zeros has cosine 0 and a finite gradient.
    norms = jnp.sum(jnp.square(a), -1) * jnp.sum(jnp.square(b), -1)
    cosine = jnp.sum(a * b, -1) * jax.lax.rsqrt(jnp.maximum(norms, 1e-12))
    return 1 - jnp.mean(cosine)


def _mean(x: jax.Array) -> jax.Array:
    return jnp.mean(x.astype(jnp.float32))


def _mean_abs(x: jax.Array) -> jax.Array:
    return jnp.mean(jnp.abs(x))
