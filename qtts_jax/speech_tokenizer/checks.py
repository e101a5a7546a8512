"""Checks of codes, streamed audio and other arguments that both tokenizer families share."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtts_jax.errors import AudioError, RequestError


def check_codes(array: np.ndarray, codebook_size: int) -> np.ndarray:
    """Codes of the right shape as int32.

    Raises:
        RequestError: no integers, no frames, or a code outside the codebook.
    """
    if not np.issubdtype(array.dtype, np.integer):
        raise RequestError(f"codes must be integers, not {array.dtype}.")
    if not len(array):
        raise RequestError("codes are empty: give at least one frame.")
    if array.min() < 0 or array.max() >= codebook_size:
        wrong = array.min() if array.min() < 0 else array.max()
        raise RequestError(f"codes must lie in 0 ... {codebook_size - 1}, but one is {wrong}.")
    return array.astype(np.int32)


def check_chunk(chunk: Any) -> np.ndarray:
    """One chunk of streamed audio as float32 [n].

    Raises:
        AudioError: a wrong shape or type, NaN or infinite samples.
    """
    array = np.asarray(chunk)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.floating):
        raise AudioError(
            f"streamed audio must be float arrays of shape [n] (mono), not {array.dtype} "
            f"{list(array.shape)}."
        )
    if not np.isfinite(array).all():
        raise AudioError("streamed audio holds NaN or infinite samples: repair it first.")
    return array.astype(np.float32)
