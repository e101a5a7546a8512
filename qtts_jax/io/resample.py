"""Sample-rate conversion of mono audio."""

import numpy as np


def resample(wave: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Mono float32 audio [T] at another rate, [ceil(T * target / rate)].

    The samples are those of `librosa.resample` with its default, SoX's high quality, without
    librosa and the compiler it imports.
    """
    import soxr

    out = soxr.resample(wave, rate, target, quality="soxr_hq")
    length = int(np.ceil(len(wave) * (target / rate)))
    return np.pad(out[:length], (0, max(length - len(out), 0))).astype(np.float32)
