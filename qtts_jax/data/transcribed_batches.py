"""Batches of whole clips with their text, for training a tokenizer by speech recognition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qtts_jax.data.dataset import Waves
from qtts_jax.data.loader import Loader, digest_of
from qtts_jax.errors import DataError

# Text ids of `byte_ids`: the bytes of UTF-8, and the end of the text.
TEXT_END = 256
BYTE_VOCABULARY = 257
_TEXT_MULTIPLE = 8


def byte_ids(text: str) -> list[int]:
    """The UTF-8 bytes of a text, and its end: ids that need no vocabulary."""
    return [*text.encode("utf-8"), TEXT_END]


class TranscribedBatches(Loader):
    """Endless batches of whole clips; every clip once an epoch, in a new order each.

    A batch has `audio`, float32 [rows, N], the real mel `frames` int32 [rows], rounded up to whole
    codes, `text` int32 [rows, L] and its `text_length` int32 [rows]; `frames_per_row` and
    `text_per_row` float32 [rows] are the means over the rows (`Task.gradients`).

    Args:
        waves: clips at the rate of the encoder.
        texts: ids of each clip, their end included.
        rows: of a batch.
        samples_per_code, hop: of the encoder.
        seconds: longer clips are left out.
        seed: of the orders.
        threads, stop: see `Loader`.

    Attributes:
        left_out: clips that are too long.

    Raises:
        DataError: every clip is too long, or a text is empty.
    """

    def __init__(
        self,
        waves: Waves,
        texts: Sequence[Sequence[int]],
        *,
        rows: int,
        samples_per_code: int,
        hop: int,
        seconds: float,
        seed: int = 0,
        threads: int = 1,
        stop: int | None = None,
    ) -> None:
        if not all(texts):
            raise DataError(
                "a clip without text cannot train speech recognition; leave it out or transcribe "
                "it."
            )
        limit = int(seconds * waves.sample_rate) // samples_per_code * samples_per_code
        kept = [i for i, n in enumerate(waves.lengths) if n <= limit]
        if not kept:
            raise DataError(
                f"all clips are longer than {seconds:g} s, the limit of a row; raise it or cut "
                "the clips."
            )
        self.left_out = len(waves) - len(kept)
        self._waves, self._kept = waves, kept
        self._texts = [np.asarray(texts[i], np.int32) for i in kept]
        codes = -(-waves.lengths[kept] // samples_per_code)
        self._frames = (codes * (samples_per_code // hop)).astype(np.int32)
        longest = max(len(t) for t in self._texts)
        self._shape = (rows, int(codes.max()) * samples_per_code)
        self._ids = -(-longest // _TEXT_MULTIPLE) * _TEXT_MULTIPLE
        self._order_seed = seed
        super().__init__(
            self._make,
            clips=len(kept),
            digest=digest_of(
                [waves.lengths.tobytes(), waves.samples[::100].tobytes()]
                + [t.tobytes() for t in self._texts]
            ),
            seed=seed,
            threads=threads,
            stop=stop,
        )

    def _make(self, number: int) -> dict[str, np.ndarray]:
        rows = self._shape[0]
        audio, text = np.zeros(self._shape, np.float32), np.zeros((rows, self._ids), np.int32)
        clips = [self._clip(number * rows + row) for row in range(rows)]
        for row, clip in enumerate(clips):
            wave, ids = self._waves[self._kept[clip]], self._texts[clip]
            audio[row, : len(wave)] = wave / np.float32(32768)
            text[row, : len(ids)] = ids
        frames = self._frames[clips]
        lengths = np.asarray([len(self._texts[clip]) for clip in clips], np.int32)
        return {
            "audio": audio,
            "frames": frames,
            "frames_per_row": np.full(rows, frames.mean(), np.float32),
            "text": text,
            "text_length": lengths,
            "text_per_row": np.full(rows, lengths.mean(), np.float32),
        }

    def _clip(self, position: int) -> int:
        """The clip at a position of the concatenated epochs."""
        epoch, place = divmod(position, len(self._kept))
        order = np.random.default_rng([self._order_seed, epoch]).permutation(len(self._kept))
        return int(order[place])
