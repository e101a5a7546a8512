"""Features of the semantic teacher, computed for all clips once at the start of a training run."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from qtts_jax.data.dataset import Waves
from qtts_jax.data.threads import in_order
from qtts_jax.data.whisper import (
    SAMPLE_RATE,
    STEP,
    WhisperConfig,
    WhisperEncoder,
    window_mel,
)
from qtts_jax.data.whisper_files import load_whisper
from qtts_jax.errors import DataError
from qtts_jax.functional import Params, abstract, bind
from qtts_jax.io.resample import resample


class Features:
    """Frame-level features of clips in memory.

    Attributes:
        indices: [N], numbers of the clips in the dataset.
        hop: samples of one feature, at the rate of the dataset.
        starts: [N + 1], where each clip begins in `values`.
        values: [sum, D] float16.
    """

    def __init__(
        self, indices: np.ndarray, hop: int, starts: np.ndarray, values: np.ndarray
    ) -> None:
        self.indices, self.hop, self.starts, self.values = indices, hop, starts, values

    @property
    def width(self) -> int:
        """Dimension D."""
        return self.values.shape[1]

    def __getitem__(self, position: int) -> np.ndarray:
        """Features [T', D] of the clip `indices[position]`, a view."""
        return self.values[self.starts[position] : self.starts[position + 1]]


def teacher_features(
    waves: Waves,
    directory: str | os.PathLike[str],
    *,
    pool: int = 4,
    rows: int = 16,
    standardize: bool = True,
    workers: int | None = None,
    progress: bool = True,
) -> Features:
    """Compute Whisper encoder features of clips on the default device.

    As in Whisper, a clip is cut into windows of 30 s, the last one padded with silence.

    Args:
        directory: of `convert_whisper`.
        pool: features of 20 ms that are averaged; 4 for the 12.5 Hz of a 12.5 Hz tokenizer.
        rows: windows encoded at once.
        standardize: give every dimension mean 0 and variance 1 over all clips. Otherwise the large
            constant part of Whisper's features dominates a cosine loss.
        workers: threads that resample.

    Raises:
        CheckpointError: there is no encoder in `directory`.
        DataError: a feature would not be a whole number of samples.
    """
    config, params = load_whisper(directory)
    hop, rest = divmod(waves.sample_rate * STEP * pool, SAMPLE_RATE)
    if rest or config.steps % pool:
        raise DataError(
            f"{pool} features of 20 ms are no whole number of samples at {waves.sample_rate} Hz, "
            "or do not divide a window; change the pooling."
        )
    counts = -(-waves.lengths // hop)
    starts = np.concatenate([[0], np.cumsum(counts)])
    values = np.empty((starts[-1], config.width), np.float16)
    encode = _program(config, pool)
    samples, per_window = config.samples, config.steps // pool
    # (first feature, number of features) of the windows in a batch.
    batch = np.zeros((rows, samples), np.float32)
    places: list[tuple[int, int]] = []

    def flush() -> None:
        features = np.asarray(encode(params, batch))
        for row, (start, count) in zip(features, places, strict=False):
            values[start : start + count] = row[:count]
        batch[:] = 0
        places.clear()

    resampled = in_order(functools.partial(_resampled, waves), range(len(waves)), workers)
    bar = tqdm(resampled, total=len(waves), desc="teacher", unit="clip", disable=not progress)
    for clip, wave in enumerate(bar):
        for start, window in _windows(wave, samples, per_window, int(counts[clip])):
            batch[len(places), : len(window)] = window
            count = min(per_window, int(counts[clip]) - start)
            places.append((int(starts[clip]) + start, count))
            if len(places) == rows:
                flush()
    if places:
        flush()
    if standardize:
        _standardize(values)
    return Features(waves.indices, hop, starts, values)


def _resampled(waves: Waves, position: int) -> np.ndarray:
    wave = waves[position].astype(np.float32) / 32768
    if waves.sample_rate == SAMPLE_RATE:
        return wave
    return resample(wave, waves.sample_rate, SAMPLE_RATE)


def _windows(
    wave: np.ndarray, samples: int, per_window: int, count: int
) -> Iterator[tuple[int, np.ndarray]]:
    """First feature and samples of each window of a clip of `count` features."""
    for number in range(-(-count // per_window)):
        yield number * per_window, wave[number * samples : (number + 1) * samples]


@functools.lru_cache(maxsize=4)
def _program(config: WhisperConfig, pool: int) -> Callable[..., jax.Array]:
    graphdef = abstract(WhisperEncoder, config)[0]

    @jax.jit
    def encode(params: Params, waves: jax.Array) -> jax.Array:
        x = bind(graphdef, params)(window_mel(waves, config.n_mels))
        return jnp.mean(x.reshape(x.shape[0], -1, pool, x.shape[2]), axis=2).astype(jnp.float16)

    return encode


def _standardize(values: np.ndarray, block: int = 1 << 16) -> None:
    """Mean 0 and variance 1 of every column, in place."""
    total, squares = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    parts = range(0, len(values), block)
    for i in parts:
        part = values[i : i + block].astype(np.float64)
        total += part.sum(axis=0)
        squares += np.square(part).sum(axis=0)
    mean = total / len(values)
    scale = 1 / np.sqrt(np.maximum(squares / len(values) - np.square(mean), 1e-12))
    for i in parts:
        part = (values[i : i + block] - mean) * scale
        values[i : i + block] = part
