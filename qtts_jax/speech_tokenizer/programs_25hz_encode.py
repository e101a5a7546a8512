"""Audio to codes in jitted programs over batches of windows, whole or while it arrives.

The windows of all recordings of a call are processed in batches of a few fixed sizes, so a new
length compiles nothing. There are two programs: one computes the log-mel power of windows; once the
peak of every recording is known, the other computes their codes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from qtts_jax.configs.tokenizer_25hz import (
    CONV_STRIDE,
    ENCODER_HOP,
    Encoder25HzConfig,
    Quirks25Hz,
)
from qtts_jax.dsp.whisper_mel import (
    MARGIN,
    MIN_POWER,
    frames_of,
    log_power,
    normalize,
    padded_wave,
)
from qtts_jax.functional import Params, abstract, bind, matmul_precision
from qtts_jax.models.tokenizer_25hz.encoder import Encoder25Hz
from qtts_jax.placement import fetch, per_shard, row_count, row_sharding
from qtts_jax.speech_tokenizer.batch_shapes import cover

# Windows of one program on a device. Distances to 32768 entries take 6.6 MB a window of 2 s.
BLOCKS = (32, 16, 8, 4, 2, 1)


class Windows(NamedTuple):
    """Windows of recordings, one a row.

    Attributes:
        samples: float32 [N, MARGIN + window + MARGIN] at 16 kHz; zeros behind the end.
        frames: int32 [N], real mel frames.
    """

    samples: np.ndarray
    frames: np.ndarray


class EncodePrograms:
    """Pure, jitted steps of the encoder; use `encode_programs` to get the shared instance.

    Args:
        quirks: `window_mask` is read.

    Attributes:
        encoder: graph definition, for programs of one's own (`functional.bind`).
        window_frames: mel frames F of a full window.
    """

    def __init__(
        self, config: Encoder25HzConfig, quirks: Quirks25Hz, mesh: Mesh | None = None
    ) -> None:
        self.config, self.quirks, self.mesh = config, quirks, mesh
        self._sizes = tuple(row_count(mesh) * size for size in BLOCKS)
        self._row_sharding = row_sharding(mesh)
        self.encoder = abstract(Encoder25Hz, config)[0]
        self.window_frames = CONV_STRIDE * config.window
        self.measure = jax.jit(per_shard(self._measure, mesh, 0))
        self.codes = jax.jit(self._codes)

    def encode(self, params: Params, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Codes of whole recordings.

        Args:
            params: those of `Encoder25Hz`; their dtype is that of the computation.
            waves: float [n] at 16 kHz, any n >= 1.

        Returns:
            int32 [ceil(n / samples_per_code)] for each.

        Raises:
            AudioError: an empty recording.
        """
        items = [self.windows(padded_wave(w, self.config.frames_per_code)) for w in waves]
        frames = np.concatenate([item.frames for item in items])
        owner = np.repeat(np.arange(len(items)), [len(item.frames) for item in items])
        powers, loudest = self._measured(np.concatenate([item.samples for item in items]), frames)
        peaks = np.full(len(items), np.log10(MIN_POWER), np.float32)
        np.maximum.at(peaks, owner, loudest)
        rows = self._encoded(params, powers, peaks[owner], frames, int(frames.max()))
        return [
            np.concatenate([rows[r] for r in np.flatnonzero(owner == i)]) for i in range(len(items))
        ]

    def stream(
        self, params: Params, chunks: Iterable[np.ndarray], peak: float | None = None
    ) -> Iterator[np.ndarray]:
        """Codes while audio arrives.

        A window gives its codes 12.5 ms (`MARGIN`) after its end. Their concatenation is what
        `encode` gives for the whole recording alone if the peak is known; by default the peak so
        far is used, which differs only if the recording becomes more than 80 dB louder later.

        Args:
            params: as `encode`.
            chunks: float32 [n], any n, at 16 kHz.
            peak: largest log-mel power of the recording (`peak`), if known.

        Yields:
            int32 [t]: whole windows as soon as they are complete, the last, partial one at the end.

        Raises:
            AudioError: no samples at all.
        """
        step, multiple = self.window_frames * ENCODER_HOP, self.config.frames_per_code
        waiting, started, longest = np.zeros(0, np.float32), False, 0
        top = np.float32(np.log10(MIN_POWER) if peak is None else peak)

        def encode(padded: np.ndarray) -> np.ndarray:
            nonlocal top, longest
            windows = self.windows(padded)
            longest = max(longest, int(windows.frames.max()))
            powers, loudest = self._measured(*windows)
            peaks = np.full(len(loudest), top)
            if peak is None:
                peaks = np.maximum.accumulate(np.maximum(loudest, top))
                top = peaks[-1]
            return np.concatenate(self._encoded(params, powers, peaks, windows.frames, longest))

        for chunk in chunks:
            waiting = np.concatenate([waiting, np.asarray(chunk, np.float32)])
            if not started:
                if waiting.size <= MARGIN:
                    continue
                waiting, started = np.pad(waiting, (MARGIN, 0), mode="reflect"), True
            # `waiting` starts MARGIN before a window.
            complete = (waiting.size - 2 * MARGIN) // step
            if complete > 0:
                yield encode(waiting[: complete * step + 2 * MARGIN])
                waiting = waiting[complete * step :]
        if not started:
            yield encode(padded_wave(waiting, multiple))
            return
        silence = frames_of(waiting.size - MARGIN, multiple) * ENCODER_HOP - (waiting.size - MARGIN)
        yield encode(np.pad(np.pad(waiting, (0, silence)), (0, MARGIN), mode="reflect"))

    def peak(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Largest log-mel power of each recording, float32 [items]; arguments as `encode`."""
        items = [self.windows(padded_wave(w, self.config.frames_per_code)) for w in waves]
        return np.array([self._measured(*item)[1].max() for item in items])

    def windows(self, padded: np.ndarray) -> Windows:
        """Cut the samples under whole frames, with a margin on either side, into windows."""
        step = self.window_frames * ENCODER_HOP
        frames = (padded.size - 2 * MARGIN) // ENCODER_HOP
        count = -(-frames // self.window_frames)
        full = np.pad(padded, (0, count * step + 2 * MARGIN - padded.size))
        view = np.lib.stride_tricks.sliding_window_view(full, step + 2 * MARGIN)[::step]
        left = frames - self.window_frames * np.arange(count)
        return Windows(view, np.minimum(left, self.window_frames).astype(np.int32))

    def _measured(
        self, samples: np.ndarray, frames: np.ndarray
    ) -> tuple[list[jax.Array], np.ndarray]:
        """Log-mel power of windows in blocks, on the device, and the peak [N] of each window."""
        powers, peaks = [], []
        for rows, real in _blocks(len(frames), self._sizes):
            block = _rows(samples[rows], real), _rows(frames[rows], real)
            power, peak = self.measure(*jax.device_put(block, self._row_sharding))
            powers.append(power)
            peaks.append(peak)
        return powers, np.concatenate(fetch(peaks))[: len(frames)]

    def _encoded(
        self,
        params: Params,
        powers: list[jax.Array],
        peaks: np.ndarray,
        frames: np.ndarray,
        longest: int,
    ) -> list[np.ndarray]:
        """Codes of each window, int32 [its own]."""
        attended = None if self.quirks.window_mask else np.int32(longest // CONV_STRIDE)
        codes = [
            self.codes(params, power, _rows(peaks[rows], n), _rows(frames[rows], n), attended)
            for power, (rows, n) in zip(powers, _blocks(len(frames), self._sizes), strict=True)
        ]
        every = np.concatenate(fetch(codes))
        return [
            row[:real]
            for row, real in zip(every, frames // self.config.frames_per_code, strict=False)
        ]

    def _measure(self, samples: jax.Array, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Samples of windows -> log-mel power [R, F, M] and its peak over real frames [R]."""
        power = log_power(samples, self.config.n_mels)
        real = jnp.arange(power.shape[1]) < frames[:, None]
        return power, jnp.max(jnp.where(real[..., None], power, jnp.log10(MIN_POWER)), axis=(1, 2))

    def _codes(
        self,
        params: Params,
        power: jax.Array,
        peak: jax.Array,
        frames: jax.Array,
        attended: jax.Array | None,
    ) -> jax.Array:
        """Codes [R, C] of windows by the peak [R] of their recordings; see `Encoder25Hz.encode`."""

        def encode(
            params: Params,
            attended: jax.Array | None,
            power: jax.Array,
            peak: jax.Array,
            frames: jax.Array,
        ) -> jax.Array:
            mel = normalize(power, peak[:, None, None]).astype(jax.tree.leaves(params)[0].dtype)
            with matmul_precision(params):
                return bind(self.encoder, params).encode(mel, frames, attended)

        return per_shard(encode, self.mesh, 2)(params, attended, power, peak, frames)


@functools.lru_cache(maxsize=32)
def encode_programs(
    config: Encoder25HzConfig, quirks: Quirks25Hz, mesh: Mesh | None = None
) -> EncodePrograms:
    """The programs of a configuration; equal ones share one instance and its compilations.

    Args:
        mesh: devices over which windows are split; None for a single one.
    """
    return EncodePrograms(config, quirks, mesh)


def _blocks(windows: int, sizes: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """The windows of each block and its size, which may be larger."""
    start = 0
    for size in cover(windows, sizes):
        yield slice(start, min(start + size, windows)), size
        start += size


def _rows(array: np.ndarray, rows: int) -> np.ndarray:
    """`array` filled up with zeros to `rows`."""
    missing = rows - len(array)
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)) if missing else array
