"""Batches for the two halves of the 25 Hz decoder: codes to mel, and mel to samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from qtts_jax.data.dataset import Waves
from qtts_jax.data.loader import Loader, digest_of
from qtts_jax.errors import DataError

# Natural-log mel of digital silence (`MelConfig.mel_floor`).
SILENCE = float(np.log(1e-5))


class FlowBatches(Loader):
    """Endless batches of crops of codes with their mel frames and a reference of the speaker.

    The reference is a crop of another clip of the speaker, where there is one. Every code is as
    likely as any other. A batch is that of `FlowTask`.

    Args:
        codes: int [T] or [T, 1] of every clip.
        mels: [F, M] of every clip, in its order.
        references: [F, M] likewise, of the clips at the level of references.
        speakers: of every clip.
        rows, length: of a batch; `length` is codes.
        repeats: mel frames per code.
        reference_frames: the longest reference; least_reference: the shortest one.
        xvectors: [N, X] of every clip.
        seed: of all choices.
        threads, stop: see `Loader`.

    Raises:
        DataError: every clip is too short to be a reference.
    """

    def __init__(
        self,
        codes: Sequence[np.ndarray],
        mels: Sequence[np.ndarray],
        references: Sequence[np.ndarray],
        speakers: Sequence[str],
        xvectors: np.ndarray,
        *,
        rows: int,
        length: int,
        repeats: int,
        reference_frames: int,
        least_reference: int,
        seed: int = 0,
        threads: int = 1,
        stop: int | None = None,
    ) -> None:
        least = max(repeats, least_reference)
        kept = [i for i, mel in enumerate(mels) if len(mel) >= least]
        if not kept:
            raise DataError(
                f"every clip has fewer than {least} mel frames (10 ms each), the least of a "
                "reference; give longer clips."
            )
        if reference_frames < least_reference:
            raise DataError(
                f"references of {reference_frames} frames are shorter than the {least_reference} "
                "that the reference encoder needs; raise reference_frames."
            )
        self._codes = [np.asarray(codes[i]).reshape(-1) for i in kept]
        self._mels = [mels[i] for i in kept]
        self._references = [references[i] for i in kept]
        self._xvectors = np.asarray(xvectors, np.float32)[kept]
        # The last code of a clip may have fewer frames than the others.
        self._usable = np.asarray(
            [min(len(c), len(m) // repeats) for c, m in zip(self._codes, self._mels, strict=True)]
        )
        self._rows, self._length, self._repeats = rows, length, repeats
        self._reference_frames, self._crop_seed = reference_frames, seed
        self._ends = np.cumsum(self._usable)
        clips = _by_speaker(speakers[i] for i in kept)
        self._others = [clips[speakers[i]] for i in kept]
        super().__init__(
            self._make,
            clips=len(kept),
            digest=digest_of(
                [x.tobytes() for x in self._codes] + [m[::10].tobytes() for m in self._mels]
            ),
            seed=seed,
            threads=threads,
            stop=stop,
        )

    def _make(self, number: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self._crop_seed, number])
        rows, length, repeats = self._rows, self._length, self._repeats
        bins = self._mels[0].shape[1]
        codes, lengths = np.zeros((rows, length), np.int32), np.zeros(rows, np.int32)
        mel = np.zeros((rows, length * repeats, bins), np.float32)
        reference = np.zeros((rows, self._reference_frames, bins), np.float32)
        references = np.zeros(rows, np.int32)
        chosen = np.searchsorted(self._ends, rng.integers(0, self._ends[-1], rows), side="right")
        for row, clip in enumerate(chosen):
            start, n = _crop(rng, int(self._usable[clip]), length)
            codes[row, :n], lengths[row] = self._codes[clip][start : start + n], n
            frames = self._mels[clip][start * repeats : (start + n) * repeats]
            mel[row, : n * repeats] = frames
            others = [i for i in self._others[clip] if i != clip] or [int(clip)]
            other = self._references[others[int(rng.integers(len(others)))]]
            start, n = _crop(rng, len(other), self._reference_frames)
            reference[row, :n], references[row] = other[start : start + n], n
        return {
            "codes": codes,
            "lengths": lengths,
            "codes_per_row": np.full(rows, lengths.mean(), np.float32),
            "mel": mel,
            "xvector": self._xvectors[chosen],
            "reference": reference,
            "reference_frames": references,
        }


class VocoderBatches(Loader):
    """Endless batches of mel frames with their samples; every frame is as likely as any other.

    A batch has `mel` float32 [rows, frames, M] and `audio` float32 [rows, frames *
    samples_per_frame]. A clip that is shorter than a crop is followed by silence.

    Args:
        waves: clips at the rate of the vocoder.
        mels: [F, M] of every clip, in its order.
        samples_per_frame: of the vocoder.
        rows, frames: of a batch.
        seed: of all choices.
        threads, stop: see `Loader`.
    """

    def __init__(
        self,
        waves: Waves,
        mels: Sequence[np.ndarray],
        *,
        samples_per_frame: int,
        rows: int,
        frames: int,
        seed: int = 0,
        threads: int = 1,
        stop: int | None = None,
    ) -> None:
        self._waves, self._mels, self._size = waves, mels, samples_per_frame
        self._rows, self._frames, self._crop_seed = rows, frames, seed
        self._ends = np.cumsum([len(mel) for mel in mels])
        super().__init__(
            self._make,
            clips=len(waves),
            digest=digest_of([waves.lengths.tobytes(), waves.samples[::100].tobytes()]),
            seed=seed,
            threads=threads,
            stop=stop,
        )

    def _make(self, number: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self._crop_seed, number])
        shape = (self._rows, self._frames, self._mels[0].shape[1])
        mel = np.full(shape, SILENCE, np.float32)
        audio = np.zeros((self._rows, self._frames * self._size), np.float32)
        points = rng.integers(0, self._ends[-1], self._rows)
        for row, clip in enumerate(np.searchsorted(self._ends, points, side="right")):
            start, n = _crop(rng, len(self._mels[clip]), self._frames)
            mel[row, :n] = self._mels[clip][start : start + n]
            wave = self._waves[clip][start * self._size : (start + n) * self._size]
            audio[row, : len(wave)] = wave / np.float32(32768)
        return {"mel": mel, "audio": audio}


def _crop(rng: np.random.Generator, given: int, wanted: int) -> tuple[int, int]:
    """Start and length of a random crop of at most `wanted` of `given`."""
    return int(rng.integers(0, max(given - wanted, 0) + 1)), min(given, wanted)


def _by_speaker(speakers: Iterable[str]) -> Mapping[str, list[int]]:
    """Positions of the clips of every speaker."""
    clips: dict[str, list[int]] = {}
    for i, speaker in enumerate(speakers):
        clips.setdefault(speaker, []).append(i)
    return clips
