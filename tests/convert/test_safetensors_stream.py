"""The streaming safetensors reader and writer, checked with the official library."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from convert import safetensors_stream
from convert.safetensors_stream import find_shards, read_header, write_file
from qtts_jax.errors import CheckpointError

ARRAYS = {
    "b.weight": np.arange(60, dtype=np.float32).reshape(3, 4, 5),
    "a.half": np.linspace(-3, 3, 7).astype(ml_dtypes.bfloat16),
    "c.count": np.array([3], np.int64),
    "scalar": np.array(2.5, np.float32),
    "flags": np.array([True, False, True]),
    "empty": np.zeros((0, 4), np.float16),
}


def read(tensor):
    out = np.empty(tensor.shape, tensor.dtype)
    tensor.read_into(out)
    return out


@pytest.fixture
def file(tmp_path):
    save_file(ARRAYS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


def assert_same(got, want):
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        assert got[name].tobytes() == array.tobytes(), name


def test_reads_what_the_official_library_wrote(file):
    assert_same({name: read(tensor) for name, tensor in read_header(file).items()}, ARRAYS)


@pytest.mark.parametrize("block", [1, 16, 10**6])
def test_strided_views_are_read_and_written_in_blocks(tmp_path, file, monkeypatch, block):
    monkeypatch.setattr(safetensors_stream, "_BLOCK_BYTES", block)
    out = np.empty((5, 4, 1, 3), np.float32)
    view = out.transpose(2, 3, 1, 0)
    read_header(file)["b.weight"].read_into(view)
    np.testing.assert_array_equal(view[0], ARRAYS["b.weight"])
    with write_file(tmp_path / "new", {"x": ((3, 4, 5), out.dtype)}) as writer:
        writer.write("x", view)
    np.testing.assert_array_equal(load_file(tmp_path / "new")["x"], ARRAYS["b.weight"])


def test_official_library_reads_what_was_written(tmp_path):
    path = tmp_path / "new.safetensors"
    layout = {name: (array.shape, array.dtype) for name, array in ARRAYS.items()}
    with write_file(path, layout) as writer:
        for name in reversed(ARRAYS):
            writer.write(name, ARRAYS[name])
    assert_same(load_file(path), ARRAYS)
    with safe_open(path, "np") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_file_is_the_same_as_the_official_one(tmp_path, file):
    path = tmp_path / "new.safetensors"
    names = ["b.weight", "a.half"]
    save_file({name: ARRAYS[name] for name in names}, file, metadata={"format": "pt"})
    with write_file(path, {n: (ARRAYS[n].shape, ARRAYS[n].dtype) for n in names}) as writer:
        for name in names:
            writer.write(name, ARRAYS[name])
    assert path.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("keep", [0, 4, 8, 40, -1])
def test_truncated_file_is_one_clear_error(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model.safetensors is truncated or not a safeten"):
        read_header(file)


def header_file(path, header, data=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[1, 2]",
        {"x": {"dtype": "F32", "shape": [2]}},
        {"x": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}},
        {"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
        {"x": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}},
        {
            "x": {"dtype": "U8", "shape": [4], "data_offsets": [6, 10]},
            "y": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
        },
    ],
)
def test_corrupt_header_is_one_clear_error(tmp_path, header):
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        read_header(header_file(tmp_path / "x.safetensors", header))


def test_file_that_shrinks_while_read_is_an_error(file):
    tensor = read_header(file)["b.weight"]
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="is truncated"):
        read(tensor)


def test_folder_without_weights_says_what_is_expected(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        find_shards(tmp_path)


def write_index(folder, weight_map):
    text = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text)


def test_index_names_the_shards(tmp_path):
    write_index(tmp_path, {"x": "b.safetensors", "y": "a.safetensors", "z": "a.safetensors"})
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").touch()
    assert [path.name for path in find_shards(tmp_path)] == ["a.safetensors", "b.safetensors"]


def test_single_file_beats_a_stale_index(tmp_path):
    """As for transformers, which looks for the single file first."""
    write_index(tmp_path, {"x": "a.safetensors"})
    for name in ("a", "model"):
        (tmp_path / f"{name}.safetensors").touch()
    assert [path.name for path in find_shards(tmp_path)] == ["model.safetensors"]


def test_missing_shard_is_named(tmp_path):
    write_index(tmp_path, {"x": "a.safetensors", "y": "b.safetensors"})
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"lacks the shards b\.safetensors"):
        find_shards(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', '{"other": {}}'])
def test_corrupt_index_is_one_clear_error(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="is not a safetensors index"):
        find_shards(tmp_path)
