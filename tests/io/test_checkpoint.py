"""Checkpoint folders: parameters survive bit by bit, and every fault has its own message."""

import inspect
import json
from importlib.metadata import version
from itertools import pairwise

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from qtts_jax.errors import CheckpointError
from qtts_jax.io import checkpoint, streamed_arrays
from qtts_jax.io.checkpoint import (
    flatten_params,
    iterate_params,
    load_params,
    read_config,
    save_params,
    stored_params,
)
from qtts_jax.io.streamed_arrays import LazyArray, StreamingHandler


def make_tree():
    rng = np.random.default_rng(0)
    layers = {
        i: {"kernel": rng.standard_normal((3, 4)).astype(ml_dtypes.bfloat16)} for i in range(12)
    }
    return {
        "talker": {"layers": layers, "scale": rng.standard_normal(5).astype(np.float32)},
        "count": np.arange(3, dtype=np.int32),
    }


def shapes_of(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float32), tree)


@pytest.fixture
def folder(tmp_path):
    save_params(tmp_path, make_tree())
    return tmp_path


def test_orbax_still_has_the_private_hooks_that_are_overridden():
    """A release without them would write whole arrays at once, with several times the memory."""
    handler = ocp.type_handlers.NumpyHandler
    found = f"orbax-checkpoint {version('orbax-checkpoint')} (see `StreamingHandler`)"
    write = getattr(handler, "_open_and_write", None)
    assert inspect.iscoroutinefunction(write), f"{found} has no coroutine _open_and_write"
    assert list(inspect.signature(write).parameters) == ["self", "value", "tspec", "ts_context"], (
        f"{found} calls _open_and_write with other arguments"
    )
    assert "self._open_and_write(" in inspect.getsource(handler), (
        f"{found} no longer calls _open_and_write"
    )
    assert "_deepcopy_host_arrays" in inspect.getsource(handler), (
        f"{found} no longer reads _deepcopy_host_arrays"
    )


def test_parameters_come_back_bit_by_bit(folder):
    tree = make_tree()
    loaded = load_params(folder, shapes_of(tree))
    assert jax.tree.structure(loaded) == jax.tree.structure(tree)
    stored = dict(iterate_params(folder))
    for name, array in flatten_params(tree).items():
        got = flatten_params(loaded)[name]
        assert stored[name].tobytes() == array.tobytes(), name
        assert isinstance(got, jax.Array)
        assert got.dtype == array.dtype
        assert np.asarray(got).tobytes() == array.tobytes(), name


def test_stored_params_gives_names_shapes_and_dtypes(folder):
    stored = stored_params(folder)
    assert stored["talker/layers/11/kernel"].shape == (3, 4)
    assert stored["talker/layers/11/kernel"].dtype == jnp.bfloat16
    assert stored.keys() == flatten_params(make_tree()).keys()


def test_dtype_casts_floating_point_only(folder):
    tree = make_tree()
    loaded = load_params(folder, shapes_of(tree), dtype=jnp.float32)
    assert loaded["talker"]["layers"][3]["kernel"].dtype == jnp.float32
    assert loaded["count"].dtype == jnp.int32
    want = tree["talker"]["layers"][3]["kernel"].astype(np.float32)
    np.testing.assert_array_equal(loaded["talker"]["layers"][3]["kernel"], want)


def test_arrays_are_restored_onto_the_given_sharding(folder):
    mesh = jax.make_mesh((1,), ("model",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("model"))
    abstract = shapes_of(make_tree())
    loaded = load_params(folder, abstract, sharding=sharding)
    assert loaded["talker"]["scale"].sharding == sharding
    loaded = load_params(folder, abstract, sharding=jax.tree.map(lambda _: rows, abstract))
    assert loaded["talker"]["scale"].sharding == rows
    own = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), abstract)
    assert load_params(folder, own)["talker"]["scale"].sharding == rows


def test_device_arrays_can_be_saved(tmp_path):
    tree = {"x": jnp.arange(4.0), "y": [jnp.ones(2), jnp.zeros(3)], "z": np.array(2.5)}
    save_params(tmp_path, tree)
    loaded = load_params(tmp_path, tree)
    np.testing.assert_array_equal(loaded["x"], tree["x"])
    np.testing.assert_array_equal(loaded["y"][1], tree["y"][1])
    assert loaded["z"] == 2.5


def test_lazy_arrays_are_made_one_batch_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed_arrays, "BATCH_BYTES", 2 * 64 * 64 * 4)
    alive, most = [0], [0]

    class Counted(np.ndarray):
        def __del__(self):
            alive[0] -= 1

    def load():
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        return np.ones((64, 64), np.float32).view(Counted)

    save_params(tmp_path, {str(i): LazyArray((64, 64), np.dtype("f4"), load) for i in range(8)})
    assert most[0] == 2
    ((name, array),) = iterate_params(tmp_path, ["7"])
    assert name == "7"
    np.testing.assert_array_equal(array, np.ones((64, 64), np.float32))


def test_saving_again_replaces_the_parameters(folder):
    save_params(folder, {"only": np.zeros(2, np.float32)})
    assert list(stored_params(folder)) == ["only"]
    assert sorted(path.name for path in folder.iterdir()) == ["params", "qtts_jax.json"]


def test_failed_save_keeps_the_old_parameters_and_leaves_nothing(folder):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_params(folder, {"x": LazyArray((2,), np.dtype("f4"), fail)})
    assert sorted(path.name for path in folder.iterdir()) == ["params", "qtts_jax.json"]
    assert stored_params(folder).keys() == flatten_params(make_tree()).keys()


def test_empty_tree_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no parameters to save"):
        save_params(tmp_path, {})


def test_all_mismatches_are_in_one_error(folder):
    tree = shapes_of(make_tree())
    tree["talker"]["layers"][5]["kernel"] = jax.ShapeDtypeStruct((4, 4), np.float32)
    tree["talker"]["new"] = jax.ShapeDtypeStruct((1,), np.float32)
    del tree["count"]
    with pytest.raises(CheckpointError) as error:
        load_params(folder, tree)
    message = str(error.value)
    assert "1 missing: talker/new" in message
    assert "1 unknown to the model: count" in message
    assert "talker/layers/5/kernel (stored (3, 4), expected (4, 4))" in message


def test_missing_folder(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint folder"):
        load_params(tmp_path / "nowhere", {})


def test_folder_without_parameters(tmp_path):
    with pytest.raises(CheckpointError, match="not a converted checkpoint"):
        load_params(tmp_path, {})


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_torch_checkpoint_names_the_convert_command(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=rf"python -m convert {tmp_path} DESTINATION"):
        load_params(tmp_path, {})


@pytest.mark.parametrize("text", ['{"format_version": 2}', "{}"])
def test_other_format_version_is_refused(folder, text):
    (folder / "qtts_jax.json").write_text(text)
    with pytest.raises(CheckpointError, match="has checkpoint format version"):
        stored_params(folder)


def test_folder_without_marker_is_refused(folder):
    (folder / "qtts_jax.json").unlink()
    with pytest.raises(CheckpointError, match="format version None"):
        stored_params(folder)


def files_of(folder):
    return sorted(path for path in (folder / "params").rglob("*") if path.is_file())


@pytest.mark.parametrize("keep", [0.0, 0.5, None])
def test_every_truncated_or_deleted_file_is_noticed(folder, keep):
    assert len(files_of(folder)) > 4
    for path in files_of(folder):
        whole = path.read_bytes()
        path.unlink()
        if keep is not None:
            path.write_bytes(whole[: int(keep * len(whole))])
        if whole:
            with pytest.raises(CheckpointError, match=path.name):
                load_params(folder, shapes_of(make_tree()))
        path.write_bytes(whole)
    load_params(folder, shapes_of(make_tree()))


def test_garbage_of_the_right_size_is_noticed(folder):
    path = folder / "params" / "_METADATA"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(CheckpointError, match="is corrupt"):
        load_params(folder, shapes_of(make_tree()))


def test_config_is_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "x"}))
    assert read_config(tmp_path) == {"model_type": "x"}


def test_missing_config_is_one_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"not a checkpoint folder: it has no config\.json"):
        read_config(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "not readable JSON"), ("[]", "JSON object")])
def test_damaged_config_is_one_clear_error(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_config(tmp_path)


def test_full_disk_during_a_save_is_one_clear_error(tmp_path, monkeypatch, capfd):
    """As TensorStore reports it, for some arrays of a batch that are written side by side."""
    write = StreamingHandler._write_slices

    async def fail(self, value, tspec, ts_context):
        if value.ndim == 2:
            raise ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device")
        await write(self, value, tspec, ts_context)

    monkeypatch.setattr(StreamingHandler, "_write_slices", fail)
    with pytest.raises(CheckpointError, match="disk of the destination is full"):
        save_params(tmp_path / "x", make_tree())
    assert list((tmp_path / "x").iterdir()) == []
    assert capfd.readouterr().err == ""


def test_too_small_disk_is_refused_before_writing(tmp_path):
    huge = LazyArray((10**9, 10**9), np.dtype("f4"), lambda: pytest.fail("made"))
    with pytest.raises(CheckpointError, match="MB are needed"):
        save_params(tmp_path / "x", {"x": huge})
    assert list((tmp_path / "x").iterdir()) == []


@pytest.mark.parametrize("dtype", [None, jnp.float32])
def test_parameters_are_restored_in_bounded_batches(folder, monkeypatch, dtype):
    """What is in flight is counted in the type of the result; a larger array goes alone."""
    limit, sizes = 100, []
    monkeypatch.setattr(checkpoint, "_IN_FLIGHT_BYTES", limit)
    restore = checkpoint._restore

    def spy(path, restore_args):
        out = restore(path, restore_args)
        sizes.append([leaf.nbytes for leaf in out.values()])
        return out

    monkeypatch.setattr(checkpoint, "_restore", spy)
    tree = make_tree()
    loaded = load_params(folder, shapes_of(tree), dtype=dtype)
    for name, array in flatten_params(tree).items():
        np.testing.assert_array_equal(flatten_params(loaded)[name], array, err_msg=name)
    assert sum(map(len, sizes)) == len(flatten_params(tree))
    assert all(sum(batch) <= limit or len(batch) == 1 for batch in sizes)
    # No emptier than they must be: neighbours would not fit into one.
    assert all(sum(a) + b[0] > limit for a, b in pairwise(sizes))
