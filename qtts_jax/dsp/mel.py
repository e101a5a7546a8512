"""Log-mel features of the speaker encoder, as one pure function of arrays.

Upstream: `mel_spectrogram` as called by
`Qwen3TTSForConditionalGeneration.extract_speaker_embedding`; the recipe is the one HiFi-GAN made
common (reflect padding instead of centring, magnitude, slaney filter bank, natural log).
"""

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.errors import AudioError, ConfigError


@dataclass(frozen=True)
class MelConfig:
    """Sizes of a log-mel analysis; the defaults are those of the released speaker encoder.

    Attributes:
        sample_rate: Hz.
        n_fft: samples in one Fourier transform.
        hop: samples from one frame to the next.
        win: samples under the (periodic) Hann window, centred in `n_fft`.
        n_mels: mel bins M.
        fmin: lower edge of the filter bank, Hz.
        fmax: upper edge of the filter bank, Hz.
        power_floor: added to the squared magnitude before the square root.
        mel_floor: least mel energy before the logarithm.
    """

    sample_rate: int = 24000
    n_fft: int = 1024
    hop: int = 256
    win: int = 1024
    n_mels: int = 128
    fmin: float = 0.0
    fmax: float = 12000.0
    power_floor: float = 1e-9
    mel_floor: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.n_fft or not 0 < self.win <= self.n_fft:
            raise ConfigError(
                f"MelConfig needs 0 < hop, win <= n_fft, got hop {self.hop}, win {self.win} and "
                f"n_fft {self.n_fft}."
            )
        if self.fmax > self.sample_rate / 2:
            raise ConfigError(
                f"A mel spectrogram up to {self.fmax:g} Hz needs a sample rate of at least "
                f"{2 * self.fmax:g} Hz, not {self.sample_rate}: correct sample_rate."
            )

    @property
    def pad(self) -> int:
        """Samples of reflection on either side."""
        return (self.n_fft - self.hop) // 2

    @property
    def min_samples(self) -> int:
        """Shortest wave that can be reflected and gives at least one frame."""
        return max(self.pad + 1, self.n_fft - 2 * self.pad)

    def frames(self, samples: int) -> int:
        """Frames of a wave of `samples`: 1 + (samples + 2 * pad - n_fft) // hop.

        With an even `n_fft - hop` (so in the released model) this is `samples // hop`.
        """
        return 1 + (samples + 2 * self.pad - self.n_fft) // self.hop


@lru_cache(maxsize=8)
def mel_filters(config: MelConfig) -> np.ndarray:
    """Slaney mel filter bank with area normalisation, float32 [n_fft // 2 + 1, M].

    Triangles between neighbours of M + 2 points at equal distances on the scale of Slaney's
    Auditory Toolbox, each divided by half its width in Hz; the values are those of
    `librosa.filters.mel`, bit for bit.
    """
    points = _slaney_hz(
        np.linspace(_slaney_mel(config.fmin), _slaney_mel(config.fmax), config.n_mels + 2)
    )
    bins = np.fft.rfftfreq(config.n_fft, 1 / config.sample_rate)
    widths, distance = np.diff(points), points[:, None] - bins
    rising, falling = -distance[:-2] / widths[:-1, None], distance[2:] / widths[1:, None]
    bank = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    bank = (bank * (2 / (points[2:] - points[:-2]))[:, None]).astype(np.float32)
    return np.ascontiguousarray(bank.T)


# Slaney's scale is linear up to 1 kHz (mel 15), then logarithmic: 27 mel for a factor of 6.4.
_LINEAR_HZ, _CORNER_HZ, _LOG_STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def _slaney_mel(hz: float) -> float:
    if hz < _CORNER_HZ:
        return hz / _LINEAR_HZ
    return float(_CORNER_HZ / _LINEAR_HZ + np.log(hz / _CORNER_HZ) / _LOG_STEP)


def _slaney_hz(mel: np.ndarray) -> np.ndarray:
    corner = _CORNER_HZ / _LINEAR_HZ
    above = _CORNER_HZ * np.exp(_LOG_STEP * (mel - corner))
    return np.where(mel >= corner, above, _LINEAR_HZ * mel)


@lru_cache(maxsize=8)
def hann_window(config: MelConfig) -> np.ndarray:
    """Periodic Hann window of `win` samples, centred in zeros, float32 [n_fft]."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.win) / config.win)
    left = (config.n_fft - config.win) // 2
    padded = np.pad(hann, (left, config.n_fft - config.win - left))
    return padded.astype(np.float32)


@jax.named_scope("log_mel")
def log_mel(
    wave: jax.Array,
    config: MelConfig = MelConfig(),
    lengths: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Natural-log mel spectrogram; float32 whatever the model's dtype.

    Args:
        wave: [B, T] or [T], in [-1, 1] at `config.sample_rate`; rows may be padded on the right.
        config: analysis sizes; static under `jax.jit`.
        lengths: int [B] (or a scalar for [T]), the samples of each row that are real, each at
            least `config.min_samples`; None means all of T. A row is reflected at its own end, so
            it gives the frames it would give alone, and what lies beyond it is never read.

    Returns:
        mel, float32 [B, config.frames(T), M] (no B for [T]), zero beyond a row's own frames, and
        the frames of each row, int32 [B] (scalar for [T]).

    Raises:
        AudioError: if T is under `config.min_samples`.
    """
    samples = wave.shape[-1]
    if samples < config.min_samples:
        raise AudioError(
            f"A mel spectrogram needs at least {config.min_samples} samples "
            f"({config.min_samples / config.sample_rate:.3f} s), got {samples}: give longer audio."
        )
    wave = wave.astype(jnp.float32)
    real = jnp.full(wave.shape[:-1], samples) if lengths is None else jnp.asarray(lengths)
    real = real.astype(jnp.int32)

    frames = config.frames(samples)
    # Position in the unpadded wave of every sample of every frame; the reflection is arithmetic on
    # these positions, so that each row turns round at its own last sample.
    start = np.arange(frames) * config.hop - config.pad
    position = np.abs(start[:, None] + np.arange(config.n_fft)).astype(np.int32)
    last = real[..., None, None] - 1
    source = jnp.clip(jnp.where(position > last, 2 * last - position, position), 0, last)
    flat = source.reshape(*source.shape[:-2], frames * config.n_fft)
    framed = jnp.take_along_axis(wave, flat, axis=-1).reshape(source.shape)

    spectrum = jnp.fft.rfft(framed * hann_window(config), axis=-1)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    magnitude = jnp.sqrt(power + config.power_floor)
    mel = jnp.matmul(magnitude, mel_filters(config), precision=jax.lax.Precision.HIGHEST)
    mel = jnp.log(jnp.maximum(mel, config.mel_floor))

    frame_counts = 1 + (real + (2 * config.pad - config.n_fft)) // config.hop
    is_real = jnp.arange(frames) < frame_counts[..., None]
    return jnp.where(is_real[..., None], mel, 0.0), frame_counts
