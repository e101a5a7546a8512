"""Arrays that are made when they are written, and the Orbax handler that bounds memory beside them.

`StreamingHandler` overrides two private methods of Orbax; a test names the version without them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

# Small chunks and small data files bound the memory of a save: TensorStore holds one data file and
# the chunks in flight beside the array. Compression would add a copy and gains little on weights.
CHUNK_BYTES = 16 << 20
DATA_FILE_BYTES = 64 << 20
_SLICE_BYTES = 64 << 20
# Small arrays are written and read together, because every call has its price.
BATCH_BYTES = 32 << 20


@dataclass(frozen=True)
class LazyArray:
    """An array that is made only when it is written; a leaf of the tree given to `save_params`.

    Attributes:
        shape: its shape.
        dtype: its numpy dtype.
        load: makes the array; called once, and the array is dropped when it is on disk.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes of the array once made."""
        return self.size * self.dtype.itemsize


class StreamingHandler(ocp.type_handlers.NumpyHandler):
    """Writes `LazyArray` and reads numpy arrays with little memory beside the arrays themselves."""

    def __init__(self) -> None:
        super().__init__()
        # The arrays are its own. Orbax before 0.12.5 has no such option and copies them.
        self._deepcopy_host_arrays = False
        self._failures: list[Exception] = []

    async def serialize(self, values: Any, infos: Any, args: Any = None) -> list[Any]:
        """Make, write and drop each batch in turn; nothing is left to wait for."""
        for batch in batches_of([value.nbytes for value in values]):
            arrays = [values[i].load() for i in batch]
            commits = await super().serialize(
                arrays, [infos[i] for i in batch], [args[i] for i in batch]
            )
            for commit in commits:
                commit.result()
            if self._failures:
                raise self._failures[0]
            del arrays, commits  # before the next batch is made
        return []

    async def _open_and_write(self, value: np.ndarray, tspec: Any, ts_context: Any) -> None:
        """Keep a failure for `serialize`: the other writes of a batch must end before it is raised,
        or they would end in a closed event loop and print a traceback each."""
        try:
            await self._write_slices(value, tspec, ts_context)
        except Exception as error:
            self._failures.append(error)

    async def _write_slices(self, value: np.ndarray, tspec: Any, ts_context: Any) -> None:
        """Write an array slice by slice: a slow disk would let encoded chunks of it pile up."""
        store = await ts.open(ts.Spec(tspec), create=True, open=True, context=ts_context)
        if value.ndim == 0:
            await store.write(value)
            return
        chunk = [size or 1 for size in store.chunk_layout.write_chunk.shape or value.shape]
        rows = chunk[0] * max(1, _SLICE_BYTES // (math.prod(chunk) * value.dtype.itemsize))
        for start in range(0, len(value), rows):
            stop = min(start + rows, len(value))
            await store[start:stop].write(
                value[start:stop], can_reference_source_data_indefinitely=True
            )

    async def deserialize(self, infos: Any, args: Any = None) -> Any:
        """Read a few chunks at a time; Orbax itself would request all of them at once."""
        for info in infos:
            info.ts_context = ts.Context(
                {"file_io_concurrency": {"limit": 2}}, parent=info.ts_context
            )
        return await super().deserialize(infos, args)


def batches_of(sizes: Sequence[int], limit: int | None = None) -> Iterator[range]:
    """Consecutive indices whose sizes sum to at most `limit`, or one larger item alone.

    Args:
        limit: None for `BATCH_BYTES`.
    """
    limit = BATCH_BYTES if limit is None else limit
    start, total = 0, 0
    for i, size in enumerate(sizes):
        if i > start and total + size > limit:
            yield range(start, i)
            start, total = i, 0
        total += size
    if sizes:
        yield range(start, len(sizes))
