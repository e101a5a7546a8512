"""Checks of what the 25 Hz decoder is given (codes, voice, noise, settings), and its batches."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from qtts_jax.checks import is_whole_number
from qtts_jax.configs.tokenizer_25hz_decoder import DiTConfig
from qtts_jax.errors import RequestError
from qtts_jax.generation.request import MAX_SEED
from qtts_jax.models.speaker_encoder import min_frames
from qtts_jax.speech_tokenizer.checks import check_codes
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice

# Folded into the key of a seed, so that noise and sampling draw from different keys; sampling folds
# in frame numbers.
NOISE = np.uint32(2**32 - 1)


def check_voice(voice: Any, dit: DiTConfig) -> ReferenceVoice:
    """A voice as float32 arrays of the decoder's sizes.

    Raises:
        RequestError: anything else.
    """
    if not isinstance(voice, ReferenceVoice):
        raise RequestError(
            f"a decoder's voice must be a ReferenceVoice, not {type(voice).__name__}."
        )
    xvector, mel = np.asarray(voice.xvector), np.asarray(voice.ref_mel)
    if xvector.shape != (dit.xvector_width,):
        raise RequestError(
            f"the x-vector must have the shape [{dit.xvector_width}], not {list(xvector.shape)}."
        )
    shortest = min_frames(dit.reference_encoder)
    if mel.ndim != 2 or mel.shape[1] != dit.n_mels or len(mel) < shortest:
        raise RequestError(
            f"the reference mel must have the shape [frames, {dit.n_mels}] with at least "
            f"{shortest} frames, not {list(mel.shape)}."
        )
    return ReferenceVoice(_finite("the x-vector", xvector), _finite("the reference mel", mel))


def check_frames(codes: Any, dit: DiTConfig) -> np.ndarray:
    """Codes [T] or [T, 1] as int32 [T].

    Raises:
        RequestError: a wrong shape or type, no codes, or one outside the codebook.
    """
    array = np.asarray(codes)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise RequestError(f"codes must have the shape [frames], not {list(array.shape)}.")
    return check_codes(array, dit.code_entries)


def check_noise(noise: Any, codes: int, dit: DiTConfig) -> np.ndarray | None:
    """Noise for at least so many codes as float32 [frames, M]; None stays None.

    Raises:
        RequestError: a wrong shape or type, or numbers that are not finite.
    """
    if noise is None:
        return None
    array = np.asarray(noise)
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    needed = codes * dit.repeats
    if array.ndim != 2 or array.shape[1] != dit.n_mels or len(array) < needed:
        raise RequestError(
            f"noise must have the shape [frames, {dit.n_mels}] with at least {needed} frames, "
            f"{dit.repeats} for a code, not {list(array.shape)}."
        )
    return _finite("noise", array)


def check_flow(steps: Any, guidance: Any) -> tuple[int, float]:
    """The settings of the flow.

    Raises:
        RequestError: fewer than 2 steps, negative or infinite guidance.
    """
    if not is_whole_number(steps, 2):
        raise RequestError(f"steps must be a whole number of at least 2, not {steps!r}.")
    number = isinstance(guidance, numbers.Real) and not isinstance(guidance, bool)
    if not number or not 0 <= guidance < np.inf:
        raise RequestError(f"guidance must be a number from 0 up, not {guidance!r}.")
    return int(steps), float(guidance)


def each(name: str, value: Any, count: int) -> list[Any]:
    """One value for all items, or a list of one for each.

    Raises:
        RequestError: a list of another length.
    """
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise RequestError(f"{name} has {len(value)} entries for {count} items; give one or each.")
    return list(value)


def stack(arrays: Sequence[Any], length: int) -> np.ndarray:
    """Arrays [n, ...] as [B, length, ...], padded with zeros or cut."""
    out = np.zeros((len(arrays), length, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array[:length]
    return out


def noise_keys(seeds: Sequence[int]) -> jax.Array:
    """Random keys [B] of the noise; those of generation come from the same seeds.

    Raises:
        RequestError: a seed is no whole number from 0 to `MAX_SEED`.
    """
    for seed in seeds:
        if not is_whole_number(seed, 0, MAX_SEED):
            raise RequestError(f"seed must be a whole number from 0 to {MAX_SEED}, not {seed!r}.")
    keys = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, NOISE)


def _finite(what: str, array: np.ndarray) -> np.ndarray:
    """Floats as float32; values that overflow float32 are refused like infinite ones."""
    with np.errstate(over="ignore"):
        if np.issubdtype(array.dtype, np.floating):
            single = array.astype(np.float32)
            if np.isfinite(single).all():
                return single
    raise RequestError(f"{what} must hold finite floating point numbers.")
