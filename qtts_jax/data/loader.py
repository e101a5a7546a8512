"""A batch iterator over a pure function of the batch number, with prefetching threads (grain)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from qtts_jax.errors import DataError
from qtts_jax.extras import import_extra

# Batches made ahead of the training step.
_AHEAD = 8


class Loader:
    """`training.task.Batches` over a pure function of the batch's number.

    A position is therefore one number, and the batches after it are the same on every machine, with
    any number of threads. The digest of the clips is part of it: a training run resumes with the
    clips that it began with; a new run that starts from its weights may use others.

    Args:
        make: the batch of a number from 0 up; called by several threads at once.
        clips: number of clips that the batches are made of.
        digest: of the clips, by `digest_of`.
        seed: part of the position, so that a run cannot go on with another order.
        threads: 0 to make each batch when it is needed. Batches from memory are made under Python's
            lock, where several threads only wait for each other and for the training.
        stop: batches in all; None without end.

    Raises:
        MissingExtraError: grain is not installed (extra `train`).
    """

    def __init__(
        self,
        make: Callable[[int], dict[str, np.ndarray]],
        *,
        clips: int,
        digest: str,
        seed: int,
        threads: int = 1,
        stop: int | None = None,
    ) -> None:
        grain = import_extra("grain", "train", "training batches")
        kind = type(self).__name__
        self._data = {"kind": kind, "clips": clips, "digest": digest, "seed": seed}
        numbers = grain.MapDataset.range(stop if stop is not None else np.iinfo(np.int64).max)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_AHEAD + threads)
        if threads == 0:
            options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        self._iterator: Any = iter(numbers.map(make).to_iter_dataset(options))

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """The next batch."""
        return next(self._iterator)

    def state(self) -> dict[str, Any]:
        """The position, as JSON values."""
        return self._data | {"next": int(self._iterator.get_state()["next_index"])}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position that `state` returned.

        Raises:
            DataError: it is that of another seed, kind of batches or choice of clips, or of clips
                that have changed.
        """
        if state != self._data | {"next": state.get("next")} or not isinstance(state["next"], int):
            raise DataError(
                f"the position {state} is not one of these batches, {self._data}; go on with the "
                "data and the seed that the run began with, or begin another run with its weights."
            )
        self._iterator.set_state({"next_index": state["next"]})

    def close(self) -> None:
        """End the threads."""
        self._iterator.close()


def digest_of(parts: Iterable[bytes]) -> str:
    """A short hash of the clips that a loader reads."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
