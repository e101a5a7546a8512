"""Tensors are read from both layouts of torch files, and nothing else is."""

import collections
import io
import os
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from qtts_jax.errors import EvaluationError
from qtts_jax.evaluation.judges.torch_file import _MAGIC, read_torch_file

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
COUNT = np.array([7, -8], np.int64)


class Storage:
    """Stands for a torch storage in a pickle."""

    def __init__(self, kind, key, size):
        self.pid = ("storage", kind, key, "cpu", size)


@pytest.fixture
def tree(monkeypatch):
    """A checkpoint as torch pickles it: references to names in modules called torch."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_):
        raise AssertionError

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
    )
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Tensor:
        def __init__(self, *arguments):
            self.arguments = arguments

        def __reduce__(self):
            return _rebuild_tensor_v2, (*self.arguments, False, collections.OrderedDict())

    floats, longs = Storage(torch.FloatStorage, "0", 6), Storage(torch.LongStorage, "1", 2)
    state = collections.OrderedDict(
        weight=Tensor(floats, 0, (2, 3), (3, 1)),
        transposed=Tensor(floats, 0, (3, 2), (1, 3)),
        tail=Tensor(floats, 4, (2,), (1,)),
        count=Tensor(longs, 0, (2,), (1,)),
    )
    return {"step": 3, "model": state}


class Pickler(pickle.Pickler):
    def __init__(self, file, views=()):
        super().__init__(file, protocol=2)
        self.views = views

    def persistent_id(self, value):
        return (*value.pid, *self.views) if isinstance(value, Storage) else None


def check(found):
    assert found["step"] == 3
    np.testing.assert_array_equal(found["model"]["weight"], WEIGHT)
    np.testing.assert_array_equal(found["model"]["transposed"], WEIGHT.T)
    np.testing.assert_array_equal(found["model"]["tail"], [4, 5])
    np.testing.assert_array_equal(found["model"]["count"], COUNT)


def test_archive(tree, tmp_path):
    pickled = io.BytesIO()
    Pickler(pickled).dump(tree)
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("model/data.pkl", pickled.getvalue())
        archive.writestr("model/data/0", WEIGHT.tobytes())
        archive.writestr("model/data/1", COUNT.tobytes())
    check(read_torch_file(tmp_path / "a.pt"))


def test_older_layout(tree, tmp_path):
    content = io.BytesIO()
    for header in (_MAGIC, 1001, {"little_endian": True}):
        pickle.dump(header, content, protocol=2)
    Pickler(content, views=(None,)).dump(tree)
    pickle.dump(["1", "0"], content, protocol=2)
    for array in (COUNT, WEIGHT):
        content.write(struct.pack("<q", array.size) + array.tobytes())
    (tmp_path / "b.pt").write_bytes(content.getvalue())
    check(read_torch_file(tmp_path / "b.pt"))


class Code:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps(Code())])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(EvaluationError, match="not a PyTorch checkpoint"):
        read_torch_file(tmp_path / "c.pt")
