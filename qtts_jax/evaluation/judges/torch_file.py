"""Tensors of a PyTorch checkpoint without PyTorch.

Both layouts of `torch.save` are read: the zip archive (since 1.6) and the older row of pickles. The
unpickler knows tensors, storages and ordered dictionaries and refuses everything else, so a file
cannot run code.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from qtts_jax.errors import EvaluationError

_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "BoolStorage": np.dtype("?"),
}
_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    size: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, contents: dict[str, bytes]) -> np.ndarray:
        dtype = self.storage.dtype
        flat = np.frombuffer(contents[self.storage.key], dtype, self.storage.size)[self.offset :]
        strides = [s * dtype.itemsize for s in self.strides]
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides).copy()


def read_torch_file(path: Path) -> Any:
    """What `torch.load` gives, with numpy arrays in place of tensors.

    Raises:
        EvaluationError: not such a file, or one with other objects than tensors and containers.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_archive(path)
        with open(path, "rb") as file:
            return _read_pickles(file)
    except (OSError, KeyError, ValueError, EOFError, struct.error, pickle.UnpicklingError) as error:
        raise EvaluationError(
            f"{path} is not a PyTorch checkpoint of plain tensors ({error}); reinstall its package."
        ) from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(
                storage, offset, shape, strides
            )
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it holds a {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size = pid[:5]
        if kind != "storage" or (len(pid) > 5 and pid[5] is not None):
            raise pickle.UnpicklingError("it holds views of storages")
        return _Storage(key, dtype, size)


def _read_archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        index = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        root = index.removesuffix("data.pkl")
        tree = _Unpickler(io.BytesIO(archive.read(index))).load()
        prefix = f"{root}data/"
        contents = {
            name.removeprefix(prefix): archive.read(name)
            for name in archive.namelist()
            if name.startswith(prefix)
        }
    return _fill(tree, contents)


def _read_pickles(file: IO[bytes]) -> Any:
    if _Unpickler(file).load() != _MAGIC:
        raise ValueError("no magic number")
    _Unpickler(file).load()  # version of the layout
    _Unpickler(file).load()  # sizes on the machine that wrote it
    tree = _Unpickler(file).load()
    keys = _Unpickler(file).load()
    storages = _storages(tree)
    contents = {}
    for key in keys:
        (size,) = struct.unpack("<q", file.read(8))
        contents[key] = file.read(size * storages[key].dtype.itemsize)
    return _fill(tree, contents)


def _storages(tree: Any) -> dict[str, _Storage]:
    if isinstance(tree, _Tensor):
        return {tree.storage.key: tree.storage}
    found: dict[str, _Storage] = {}
    items = tree.values() if isinstance(tree, dict) else tree
    for item in items if isinstance(tree, dict | list | tuple) else ():
        found |= _storages(item)
    return found


def _fill(tree: Any, contents: dict[str, bytes]) -> Any:
    if isinstance(tree, _Tensor):
        return tree.array(contents)
    if isinstance(tree, dict):
        return {key: _fill(value, contents) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_fill(value, contents) for value in tree)
    return tree
