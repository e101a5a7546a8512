"""Peak normalisation as the SoX program does it, to the bit.

Source: upstream `XVectorExtractor`, which calls SoX's `norm -6` (the effect `gain -n`) on float
samples. Nothing else of SoX is needed, so the program is not.
"""

from __future__ import annotations

import numpy as np

_FULL = 2.0**31
# SoX writes float samples with 24 bits of the 32 it computes in.
_STEP = 128


def normalize_peak(wave: np.ndarray, decibels: float = -6.0) -> np.ndarray:
    """Scale a wave so that its peak lies `decibels` from full scale.

    Samples become 32-bit integers in between, as in SoX: fractions are cut off, values beyond full
    scale are clipped, and digital silence stays silent.

    Args:
        wave: float [T], full scale at 1.

    Returns:
        float32 [T].
    """
    top = _FULL - 1
    samples = np.clip(np.trunc(wave.astype(np.float64) * _FULL), -_FULL, top)
    high, low = max(samples.max(initial=0), 1), min(samples.min(initial=0), -1)
    gain = 10 ** (decibels / 20) * min(top / high, _FULL / -low)
    scaled = samples * gain
    scaled = np.clip(np.trunc(scaled + np.copysign(0.5, scaled)), -_FULL, top)
    rounded = np.floor((scaled + _STEP / 2) / _STEP) * _STEP
    return (np.minimum(rounded, _FULL) / _FULL).astype(np.float32)
