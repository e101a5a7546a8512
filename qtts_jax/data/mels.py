"""Log-mels for the speaker encoder, computed once at the start of a training run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from qtts_jax.data.dataset import Waves
from qtts_jax.dsp.mel import MelConfig, log_mel

# Shortest padded clip, and samples of a batch; both powers of two, as the lengths between.
_SHORTEST, _BATCH = 1 << 14, 1 << 20


def log_mels(
    waves: Waves, positions: Sequence[int], config: MelConfig, *, progress: bool = True
) -> dict[int, np.ndarray]:
    """Log-mel [M, mels] of clips by their position in `waves`.

    Kept as float16, so that an hour takes 86 MB at the released sizes; rounding changes a natural
    logarithm of energy by less than 0.005.

    Args:
        positions: of clips of at least `config.min_samples`.
        progress: show a bar.
    """
    lengths = waves.lengths
    padded: dict[int, list[int]] = {}
    for position in positions:
        size = max(_SHORTEST, 1 << int(lengths[position] - 1).bit_length())
        padded.setdefault(size, []).append(position)
    mels: dict[int, np.ndarray] = {}
    with tqdm(total=len(positions), desc="mels", unit="clip", disable=not progress) as bar:
        for size, group in sorted(padded.items()):
            rows = max(_BATCH // size, 1)
            for first in range(0, len(group), rows):
                part = group[first : first + rows]
                batch, real = np.zeros((rows, size), np.int16), np.full(rows, size, np.int32)
                for row, position in enumerate(part):
                    batch[row, : lengths[position]], real[row] = waves[position], lengths[position]
                values, frames = jax.device_get(_program(config)(batch, real))
                for row, position in enumerate(part):
                    mels[position] = values[row, : frames[row]].copy()
                bar.update(len(part))
    return mels


@functools.lru_cache(maxsize=4)
def _program(config: MelConfig) -> Callable[..., tuple[jax.Array, jax.Array]]:
    @jax.jit
    def mel(waves: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        values, frames = log_mel(waves.astype(jnp.float32) / 32768, config, lengths)
        return values.astype(jnp.float16), frames

    return mel
