"""A prepared dataset: shards of compressed recordings, each with its lines of an index.

A directory of files of at most 16 MiB, so that it travels as it is:

- `dataset.json`: rate, shards with their sizes and hashes. It is written last.
- `shard-00000.bin`: recordings (Ogg Opus or FLAC files), one after the other.
- `shard-00000.jsonl`: for each recording its place in the shard, length, text, speaker, ...

What is computed from it (codes, descriptions of voices) is kept beside the shards under names that
begin otherwise.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from qtts_jax.data.threads import in_order
from qtts_jax.errors import DataError
from qtts_jax.io.audio import load_audio

INDEX = "dataset.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Record:
    """A clip of a dataset.

    Attributes:
        index: its number in the dataset.
        shard, offset, size: where its bytes are.
        samples: length at the rate of the dataset.
        line: of the manifest.
        text, speaker, language, split, instruction, extra: as in `Clip`.
    """

    index: int
    shard: int
    offset: int
    size: int
    samples: int
    line: int
    text: str
    speaker: str
    language: str
    split: str
    instruction: str | None
    extra: Mapping[str, Any]


class Dataset:
    """The clips of a prepared directory.

    Attributes:
        directory: where it lies.
        sample_rate: of all recordings, Hz.
        records: all clips, in the order of the manifest.
        left_out: clips of the manifest that are not in it, by their split.
        digest: hash of everything in it.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Open a dataset.

        Raises:
            DataError: it is not there, unfinished, damaged or of another version.
        """
        self.directory = Path(directory)
        content = _read(self.directory / INDEX)
        self.digest = hashlib.sha256(content).hexdigest()
        try:
            about = json.loads(content)
            if about["format"] != FORMAT:
                raise DataError(
                    f"{self.directory} is a dataset of format {about['format']}, and this is "
                    f"format {FORMAT}; prepare it again."
                )
            self.sample_rate: int = about["sample_rate"]
            self.left_out: dict[str, int] = dict(about.get("left_out", {}))
            self._shards = [self._check(shard) for shard in about["shards"]]
            self.records = tuple(self._read_records())
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"the dataset {self.directory} is damaged ({error}); copy or prepare it again."
            ) from error

    def __len__(self) -> int:
        return len(self.records)

    def select(
        self, split: str | None = None, where: Callable[[Record], bool] | None = None
    ) -> list[int]:
        """Numbers of the clips of a split for which `where` is true, in order.

        Raises:
            DataError: there are none.
        """
        chosen = [
            r.index
            for r in self.records
            if split in (None, r.split) and (where is None or where(r))
        ]
        if not chosen:
            raise DataError(
                f"no clip of {self.directory} is in the split {split!r} and wanted; splits are "
                f"{sorted({r.split for r in self.records})}."
            )
        return chosen

    def seconds(self, index: int) -> float:
        """Length of a clip."""
        return self.records[index].samples / self.sample_rate

    def encoded(self, index: int) -> bytes:
        """The audio file of a clip."""
        record = self.records[index]
        with open(self._shards[record.shard], "rb") as file:
            file.seek(record.offset)
            return file.read(record.size)

    def wave(self, index: int) -> np.ndarray:
        """A clip as float32 [T] at the rate of the dataset.

        Raises:
            AudioError, DataError: the shard is damaged.
        """
        record, name = self.records[index], f"clip {index} of {self.directory}"
        wave = load_audio(self.encoded(index), self.sample_rate, name=name)
        if len(wave) != record.samples:
            raise DataError(
                f"{name} has {len(wave)} samples, and its index says {record.samples}; copy or "
                "prepare the dataset again."
            )
        return wave

    def _check(self, shard: Mapping[str, Any]) -> Path:
        """The path of a shard, whose files have the right sizes."""
        path = self.directory / shard["name"]
        for suffix in (".bin", ".jsonl"):
            file = path.with_suffix(suffix)
            size = file.stat().st_size if file.is_file() else None
            if size != shard[suffix]["size"]:
                raise DataError(
                    f"{file} {'is missing' if size is None else f'has {size} bytes'}, where "
                    f"the dataset needs {shard[suffix]['size']}; copy or prepare it again."
                )
        return path.with_suffix(".bin")

    def _read_records(self) -> Iterable[Record]:
        index = 0
        for number, shard in enumerate(self._shards):
            for line in _read(shard.with_suffix(".jsonl")).decode().split("\n")[:-1]:
                yield Record(index=index, shard=number, **json.loads(line))
                index += 1


class Waves:
    """Clips in memory, 16-bit, one after the other.

    Attributes:
        sample_rate: Hz.
        indices: [N] int64, numbers of the clips in the dataset.
        starts: [N + 1] int64, where each clip begins in `samples`.
        samples: [sum of lengths] int16, full scale at 32768.
    """

    def __init__(self, sample_rate: int, indices: np.ndarray, waves: Iterable[np.ndarray],
                 lengths: np.ndarray) -> None:  # fmt: skip
        self.sample_rate, self.indices = sample_rate, indices
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        self.samples = np.empty(self.starts[-1], np.int16)
        for start, wave in zip(self.starts, waves, strict=False):
            self.samples[start : start + len(wave)] = to_int16(wave)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> np.ndarray:
        """The clip `indices[position]`, a view [T] int16."""
        return self.samples[self.starts[position] : self.starts[position + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """[N] int64, samples of each clip."""
        return np.diff(self.starts)

    @property
    def seconds(self) -> float:
        """Seconds of all clips together."""
        return len(self.samples) / self.sample_rate

    @functools.cached_property
    def positions(self) -> dict[int, int]:
        """Position here of every clip, by its number in the dataset."""
        return {int(index): position for position, index in enumerate(self.indices)}


def load_waves(
    dataset: Dataset,
    indices: Iterable[int] | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> Waves:
    """Decode clips into memory; an hour at 24 kHz takes 173 MB.

    Args:
        indices: numbers of the clips; None for all.
        workers: threads; None for one a core.
        progress: show a bar.
    """
    chosen = np.asarray(list(range(len(dataset)) if indices is None else indices), np.int64)
    lengths = np.asarray([dataset.records[i].samples for i in chosen], np.int64)
    if not len(chosen):
        raise DataError("there are no clips to load; choose another split.")
    waves = in_order(dataset.wave, chosen.tolist(), workers)
    bar = tqdm(waves, total=len(chosen), desc="decode", unit="clip", disable=not progress)
    return Waves(dataset.sample_rate, chosen, bar, lengths)


def to_int16(wave: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1) as 16-bit integers; louder ones are clipped."""
    return np.clip(np.rint(wave * 32768.0), -32768, 32767).astype(np.int16)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); give the directory of a prepared dataset."
        ) from error
