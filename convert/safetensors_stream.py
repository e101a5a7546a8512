"""Safetensors files read and written one tensor at a time, in bounded memory.

The format: eight bytes with the length of a JSON header, the header (name -> dtype, shape,
[begin, end) into the data), then the data. Plain file reads and writes are used, so that no memory
map keeps a whole shard resident.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from qtts_jax.errors import CheckpointError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_BLOCK_BYTES = 8 << 20
_MAX_HEADER_BYTES = 100 << 20
_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class Tensor:
    """Shape and dtype of a stored tensor and where its bytes are."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    path: Path
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the stored values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read_into(self, out: np.ndarray) -> None:
        """Fill `out`, any view whose C order is the stored order, block by block."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for block in blocks(out):
                data = np.empty(block.shape, self.dtype)
                if file.readinto(_bytes(data)) != data.nbytes:
                    raise CheckpointError(f"{self.path} is truncated; download or copy it again.")
                block[...] = data


def find_shards(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder: the single file, or those its index names.

    With both, the single file counts, as for transformers: the index is a leftover.

    Raises `CheckpointError` when there is none, or when a shard that the index names is missing.
    """
    if (directory / SINGLE_FILE).is_file():
        return [directory / SINGLE_FILE]
    index = directory / INDEX_FILE
    if not index.exists():
        raise CheckpointError(
            f"{directory} holds neither {SINGLE_FILE} nor {INDEX_FILE}; "
            "give the folder of a released or exported checkpoint."
        )
    try:
        names = sorted(
            set(json.loads(index.read_text(encoding="utf-8-sig"))["weight_map"].values())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not a safetensors index; download it again.") from error
    shards = [directory / name for name in names]
    if missing := [shard.name for shard in shards if not shard.exists()]:
        raise CheckpointError(
            f"{directory} lacks the shards {', '.join(missing)} that {INDEX_FILE} names; "
            "download them into the same folder."
        )
    return shards


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file; raises `CheckpointError` when the file is damaged."""
    damaged = f"{path} is truncated or not a safetensors file"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(size - 8, _MAX_HEADER_BYTES):
                raise ValueError("the header does not fit in the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        start, tensors, end = 8 + length, {}, 0
        for name, entry in header.items():
            dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
            begin, stop = entry["data_offsets"]
            if stop - begin != math.prod(shape) * dtype.itemsize or begin < 0:
                raise ValueError(f"the extent of {name} does not fit its shape")
            tensors[name] = Tensor(shape, dtype, path, start + begin)
            end += stop - begin
        if start + end != size:
            raise ValueError(f"it has {size} bytes where its header needs {start + end}")
        if any(tensor.offset + tensor.nbytes > size for tensor in tensors.values()):
            raise ValueError("its tensors overlap")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{damaged} ({error}); download or copy it again.") from error
    return tensors


def write_file(path: Path, layout: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> "Writer":
    """A new file for the tensors of `layout` (name -> shape, dtype), to be filled in any order.

    Larger element types come first and names are sorted within one type, as the official writer
    does; so all tensors are aligned.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (shape, dtype) in sorted(layout.items(), key=lambda x: (-x[1][1].itemsize, x[0])):
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    offsets = {name: 8 + len(text) + header[name]["data_offsets"][0] for name in layout}
    return Writer(path, len(text).to_bytes(8, "little") + text, offsets, 8 + len(text) + end)


class Writer:
    """A safetensors file being filled; a context manager that keeps the file open."""

    def __init__(self, path: Path, start: bytes, offsets: Mapping[str, int], size: int) -> None:
        self._path, self._start, self._offsets, self._size = path, start, offsets, size

    def __enter__(self) -> "Writer":
        self._file = self._path.open("wb")
        self._file.write(self._start)
        self._file.truncate(self._size)
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def write(self, name: str, values: np.ndarray) -> None:
        """Write one tensor from any view whose C order is the stored order."""
        self._file.seek(self._offsets[name])
        for block in blocks(values):
            self._file.write(_bytes(np.ascontiguousarray(block)))


def blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Views of `array` along its first axis of more than one element, of about one block each."""
    array = np.atleast_1d(array)
    while array.ndim > 1 and array.shape[0] == 1:
        array = array[0]
    if array.size:
        rows = max(1, _BLOCK_BYTES * len(array) // array.nbytes)
        for start in range(0, len(array), rows):
            yield array[start : start + rows]


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
