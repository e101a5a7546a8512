"""Batches as a function of their number, made ahead of the training (grain)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grain
import numpy as np

from qtts_jax.errors import DataError

# Batches that wait for the device.
_AHEAD = 8


class Loader:
    """`training.task.Batches` over a pure function of the batch's number.

    A position is therefore one number, and what follows it is the same on every machine, with any
    number of threads.

    Args:
        make: the batch of a number from 0 up; called by several threads at once.
        seed: part of the position, so that a run cannot go on with another order.
        threads: 0 to make each batch when it is asked for. Batches from memory are made under
            Python's lock, where several threads only wait for each other and for the training.
        stop: batches in all; None without end.
    """

    def __init__(
        self,
        make: Callable[[int], dict[str, np.ndarray]],
        *,
        seed: int,
        threads: int = 1,
        stop: int | None = None,
    ) -> None:
        self._seed = seed
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
        return {"seed": self._seed, "next": int(self._iterator.get_state()["next_index"])}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position that `state` returned.

        Raises:
            DataError: it is that of another seed or another kind of data.
        """
        if state.get("seed") != self._seed or not isinstance(state.get("next"), int):
            raise DataError(
                f"the position {state} is not one of these batches, which have the seed "
                f"{self._seed}; go on with the data and the seed that the run began with."
            )
        self._iterator.set_state({"next_index": state["next"]})

    def close(self) -> None:
        """End the threads."""
        self._iterator.close()
