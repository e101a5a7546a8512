"""Checks of sample rates and sample types that reading and writing audio share."""

from typing import Any

import numpy as np

from qtts_jax.errors import AudioError

_RATES = (1_000, 768_000)


def is_float(dtype: np.dtype) -> bool:
    """Whether samples of this dtype are floating-point numbers."""
    # bfloat16 arrays, as a model may give, are no np.floating.
    return np.issubdtype(dtype, np.floating) or dtype.name == "bfloat16"


def check_rate(rate: Any, name: str) -> int:
    """A sample rate as an integer.

    Raises:
        AudioError: no whole number of Hz, or one that no recording has.
    """
    low, high = _RATES
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.integer, np.floating)):
        raise AudioError(f"The sample rate of {name} must be a number in Hz, got {rate!r}.")
    if not low <= rate <= high or rate != int(rate):
        raise AudioError(
            f"The sample rate of {name} must be a whole number from {low} to {high} Hz, "
            f"got {rate!r}."
        )
    return int(rate)
