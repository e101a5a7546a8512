"""Log-mel features of the 25 Hz encoder: Whisper's recipe (arXiv:2212.04356, section 2.2).

Power spectra of centred frames, slaney filter bank, base-10 logarithm; what lies more than eight
decades below the loudest value of the recording is raised to that level. All but this last step is
local, so it is a function of its own: `log_power` of any part of the recording, then `normalize`
by the peak of the whole. Upstream: `log_mel_spectrogram` and `get_mel_audio`.
"""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.configs.tokenizer_25hz import ENCODER_HOP, ENCODER_SAMPLE_RATE
from qtts_jax.dsp.mel import MelConfig, hann_window, mel_filters
from qtts_jax.errors import AudioError

N_FFT = 400
# Samples that a frame sees before its first hop, and after its own place in the recording.
MARGIN = N_FFT // 2
MIN_POWER = 1e-10
# Decades (base 10 of power) between the peak and the floor.
RANGE = 8.0


def frames_of(samples: int, multiple: int) -> int:
    """Frames of a recording, rounded up to a multiple.

    Args:
        multiple: `Encoder25HzConfig.frames_per_code`.
    """
    return -(-samples // (ENCODER_HOP * multiple)) * multiple


def padded_wave(wave: np.ndarray, multiple: int) -> np.ndarray:
    """The samples under the frames of a recording.

    Args:
        wave: float [n] at 16 kHz.
        multiple: frames are rounded up to it, with silence.

    Returns:
        float32 [MARGIN + frames * hop + MARGIN], mirrored at both ends.

    Raises:
        AudioError: there is no audio.
    """
    if wave.ndim != 1 or not wave.size:
        raise AudioError(f"audio must be [samples] with at least one, not {list(wave.shape)}.")
    silence = frames_of(wave.size, multiple) * ENCODER_HOP - wave.size
    full = np.pad(wave.astype(np.float32), (0, silence))
    return np.pad(full, MARGIN, mode="reflect")


@jax.named_scope("log_power")
def log_power(padded: jax.Array, n_mels: int) -> jax.Array:
    """Base-10 logarithm of the mel power of every frame.

    Args:
        padded: float32 [..., MARGIN + frames * hop + MARGIN]; any stretch of `padded_wave` that
            starts at a multiple of the hop.
        n_mels: mel bins M.

    Returns:
        float32 [..., frames, M].
    """
    frames = (padded.shape[-1] - 2 * MARGIN) // ENCODER_HOP
    place = np.arange(frames)[:, None] * ENCODER_HOP + np.arange(N_FFT)
    config = _analysis(n_mels)
    spectrum = jnp.fft.rfft(padded[..., place] * hann_window(config), axis=-1)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    mel = jnp.matmul(power, mel_filters(config), precision=jax.lax.Precision.HIGHEST)
    return jnp.log10(jnp.maximum(mel, MIN_POWER))


def normalize(log_power: jax.Array, peak: jax.Array) -> jax.Array:
    """What the encoder reads: [..., frames, M], by the largest `log_power` of the recording.

    Args:
        peak: float32, broadcasts against `log_power`.
    """
    return (jnp.maximum(log_power, peak - RANGE) + 4.0) / 4.0


@lru_cache(maxsize=8)
def _analysis(n_mels: int) -> MelConfig:
    return MelConfig(
        sample_rate=ENCODER_SAMPLE_RATE,
        n_fft=N_FFT,
        hop=ENCODER_HOP,
        win=N_FFT,
        n_mels=n_mels,
        fmax=ENCODER_SAMPLE_RATE / 2,
    )
