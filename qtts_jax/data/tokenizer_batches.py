"""Batches for tokenizer training: random crops of recordings in memory."""

from __future__ import annotations

import numpy as np

from qtts_jax.data.dataset import Waves
from qtts_jax.data.loader import Loader, digest_of
from qtts_jax.data.teacher import Features
from qtts_jax.errors import DataError


class TokenizerBatches(Loader):
    """Endless batches of crops; every second of speech is as likely as any other.

    A clip that is shorter than a crop lies somewhere in silence. With a teacher, crops begin where
    one of its features does; without, at any sample. Each crop is scaled at random.

    A batch has `audio`, float32 [rows, frames * samples_per_frame], and with a teacher `teacher`,
    float16 [rows, features of that time, D].

    Args:
        waves: the recordings.
        rows, frames: of a batch.
        samples_per_frame: of the tokenizer, at the rate of the waves.
        seed: of all choices.
        teacher: features of the same waves.
        gain_db: crops get up to this many decibels more or less, as far as they do not clip.
        threads, stop: see `Loader`.

    Raises:
        DataError: the teacher's features do not fit the waves or the crop.
    """

    def __init__(
        self,
        waves: Waves,
        *,
        rows: int,
        frames: int,
        samples_per_frame: int,
        seed: int = 0,
        teacher: Features | None = None,
        gain_db: float = 6.0,
        threads: int = 1,
        stop: int | None = None,
    ) -> None:
        self._waves, self._teacher = waves, teacher
        self._rows, self._samples = rows, frames * samples_per_frame
        self._gain_db, self._crop_seed = gain_db, seed
        self._hop = 1
        if teacher is not None:
            self._hop = teacher.hop
            if not np.array_equal(teacher.indices, waves.indices):
                raise DataError("the teacher's features are of other clips; compute them again.")
            if self._samples % self._hop:
                raise DataError(
                    f"a crop of {self._samples} samples is no multiple of the {self._hop} samples "
                    "of a feature; change the frames of a crop or the pooling of the teacher."
                )
        # A crop is of the clip in which a uniform sample number falls, so clips count by length.
        self._lengths = waves.lengths
        self._ends = np.cumsum(self._lengths)
        super().__init__(
            self._make,
            clips=len(waves),
            # Every hundredth sample is enough to distinguish recordings, and hashes faster.
            digest=digest_of([self._lengths.tobytes(), waves.samples[::100].tobytes()]),
            seed=seed,
            threads=threads,
            stop=stop,
        )

    def _make(self, number: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self._crop_seed, number])
        points = rng.integers(0, self._ends[-1], self._rows)
        clips = np.searchsorted(self._ends, points, side="right")
        places, gains = rng.random(self._rows), rng.uniform(-1, 1, self._rows)
        audio = np.zeros((self._rows, self._samples), np.float32)
        batch = {"audio": audio}
        if self._teacher is not None:
            shape = (self._rows, self._samples // self._hop, self._teacher.width)
            batch["teacher"] = np.zeros(shape, np.float16)
        for row, (clip, place) in enumerate(zip(clips, places, strict=True)):
            start = self._start(int(clip), float(place))
            _copy(self._waves[clip], start, audio[row])
            audio[row] *= self._gain(audio[row], gains[row])
            if self._teacher is not None:
                # Silence around a short clip has the features of its first or last step.
                wanted = start // self._hop + np.arange(shape[1])
                given = self._teacher[clip]
                batch["teacher"][row] = given[np.clip(wanted, 0, len(given) - 1)]
        return batch

    def _start(self, clip: int, place: float) -> int:
        """First sample of a crop, below 0 for silence in front of a short clip."""
        room = int(self._lengths[clip]) - self._samples
        steps = int(place * (abs(room) // self._hop + 1))
        return steps * self._hop if room >= 0 else -steps * self._hop

    def _gain(self, audio: np.ndarray, draw: float) -> np.float32:
        """Factor to float samples from 16-bit ones, with the drawn gain."""
        peak = max(float(audio.max()), -float(audio.min()), 1.0)
        return np.float32(min(10 ** (draw * self._gain_db / 20), 32767 / peak) / 32768)


def _copy(wave: np.ndarray, start: int, out: np.ndarray) -> None:
    """Copy wave[start : start + len(out)] into `out`; what is outside the wave stays as it is."""
    first, last = max(start, 0), min(start + len(out), len(wave))
    out[first - start : last - start] = wave[first:last]
