"""Log-mel filter bank energies as Kaldi computes them, in numpy.

Source: Kaldi's `compute-fbank-feats` (D. Povey et al., "The Kaldi Speech Recognition Toolkit",
ASRU 2011), as upstream `XVectorExtractor` calls it: 80 bins, no dither, 16 kHz, everything else
by Kaldi's defaults. It feeds the CAM++ speaker network, which runs outside of JAX.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qtts_jax.errors import AudioError

_EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class FbankConfig:
    """Sizes of the analysis; the defaults are those of the x-vector front end.

    Attributes:
        sample_rate: Hz.
        n_mels: mel bins M.
        win: samples in a frame (25 ms).
        hop: samples from one frame to the next (10 ms).
        fmin, fmax: edges of the filter bank, Hz.
        preemphasis: part of the previous sample that is subtracted.
    """

    sample_rate: int = 16000
    n_mels: int = 80
    win: int = 400
    hop: int = 160
    fmin: float = 20.0
    fmax: float = 8000.0
    preemphasis: float = 0.97

    @property
    def n_fft(self) -> int:
        """Samples of one Fourier transform: the next power of two."""
        return 1 << (self.win - 1).bit_length()

    def frames(self, samples: int) -> int:
        """Whole frames in a wave of `samples`; a partial one at the end is left out."""
        return 0 if samples < self.win else 1 + (samples - self.win) // self.hop


@lru_cache(maxsize=8)
def mel_filters(config: FbankConfig) -> np.ndarray:
    """Triangles that are linear on Kaldi's mel scale, float64 [n_fft // 2 + 1, M].

    The scale is 1127 ln(1 + f / 700); no area normalisation, and the bin at the Nyquist frequency
    belongs to no filter.
    """

    def mel(hertz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    edges = np.linspace(mel(config.fmin), mel(config.fmax), config.n_mels + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    at = mel(np.arange(config.n_fft // 2) * config.sample_rate / config.n_fft)[:, None]
    rising, falling = (at - left) / (centre - left), (right - at) / (right - centre)
    bank = np.maximum(0.0, np.minimum(rising, falling))
    return np.concatenate([bank, np.zeros((1, config.n_mels))])


@lru_cache(maxsize=8)
def povey_window(win: int) -> np.ndarray:
    """Kaldi's default window, a symmetric Hann to the power of 0.85: float64 [win]."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win) / (win - 1))) ** 0.85


def fbank(wave: np.ndarray, config: FbankConfig = FbankConfig()) -> np.ndarray:
    """Log energies of the mel bins: per frame mean removal, pre-emphasis, window, power, log.

    Args:
        wave: float [T] in [-1, 1] at `config.sample_rate`.

    Returns:
        float32 [config.frames(T), M], natural logarithm of energies of at least 2^-23.

    Raises:
        AudioError: less than one frame.
    """
    count = config.frames(len(wave))
    if not count:
        raise AudioError(
            f"an x-vector needs at least {config.win} samples "
            f"({config.win / config.sample_rate:.3f} s), got {len(wave)}: give longer audio."
        )
    windows = np.lib.stride_tricks.sliding_window_view(wave, config.win)[:: config.hop]
    frames = windows.astype(np.float64)
    frames -= frames.mean(axis=1, keepdims=True)
    # The first sample of a frame has itself for a predecessor.
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - config.preemphasis * before) * povey_window(config.win)
    power = np.abs(np.fft.rfft(frames, config.n_fft)) ** 2
    return np.log(np.maximum(power @ mel_filters(config), _EPSILON)).astype(np.float32)
