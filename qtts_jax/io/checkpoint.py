"""Checkpoint folders: `config.json`, text files, and the parameters as an Orbax checkpoint.

This file and `streamed_arrays.py` alone import Orbax. A folder looks like this;
`speech_tokenizer/` has the same layout:

    config.json  vocab.json  merges.txt ...   as released
    qtts_jax.json                             version of this layout, notes of the converter
    params/                                   Orbax (OCDBT), a nested dict of arrays
    params/sizes.json                         bytes of each file in params/, to notice a bad copy

Parameter trees are nested dicts; their leaves are named by the slash-joined path from the root
(`talker/layers/0/attention/qkv/kernel`).
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from qtts_jax import processes
from qtts_jax.errors import CheckpointError
from qtts_jax.io.atomic_directory import new_directory, require_space
from qtts_jax.io.config_file import CONFIG, PARAMS, check_converted, read_json
from qtts_jax.io.config_file import MARKER as MARKER
from qtts_jax.io.config_file import read_config as read_config
from qtts_jax.io.streamed_arrays import (
    CHUNK_BYTES,
    DATA_FILE_BYTES,
    LazyArray,
    StreamingHandler,
    batches_of,
)

SIZES = "sizes.json"
FORMAT_VERSION = 1

# What is on its way from the disk to the devices at a time; a larger array goes alone. Every batch
# has its price, so they are large, but where arrays shrink on arrival none should wait for others.
_IN_FLIGHT_BYTES = 1 << 30
_IN_FLIGHT_BYTES_STORED = 128 << 20
_NAMES_SHOWN = 20


def flatten_params(tree: Any) -> dict[str, Any]:
    """The leaves of a nested dict (or any pytree) by their slash-joined path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def save_params(
    directory: str | os.PathLike[str], tree: Any, notes: Mapping[str, Any] | None = None
) -> None:
    """Write `tree` as the parameters of the checkpoint folder `directory`, all or nothing.

    Leaves are arrays or `LazyArray`s; the latter are made when their turn comes. Earlier
    parameters in the folder are replaced only after the new ones are complete. `notes` (JSON
    values) go into the marker file, see `read_notes`.

    Where the arrays are on devices of several processes, all of these call this, each writes its
    shards, and the folder is one that they share.

    Raises:
        CheckpointError: the tree is empty, or the folder cannot be written (a full disk, say).
    """
    flat = flatten_params(tree)
    if not flat:
        raise CheckpointError(f"there are no parameters to save in {directory}.")
    nested = _nest({name: _as_leaf(leaf) for name, leaf in flat.items()})
    save_args = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES), nested)
    root = Path(directory).absolute()
    together = any(
        isinstance(leaf, jax.Array) and not leaf.is_fully_addressable for leaf in flat.values()
    )
    with (
        new_directory(
            root / PARAMS, overwrite=True, markers=(SIZES,), together=together
        ) as partial,
        _checkpointer(together) as checkpointer,
    ):
        require_space(partial, sum(leaf.nbytes for leaf in jax.tree.leaves(nested)))
        checkpointer.save(
            partial,
            args=ocp.args.PyTreeSave(
                nested, save_args=save_args, ocdbt_target_data_file_size=DATA_FILE_BYTES
            ),
            force=True,  # the folder is there, empty
        )
        if together and not processes.writes():
            return
        # Orbax writes a path of this machine into its mark of success; only its presence counts.
        success = partial / "commit_success.txt"
        if success.exists():
            success.write_text("complete\n", encoding="utf-8")
        (partial / SIZES).write_text(json.dumps(_file_sizes(partial)), encoding="utf-8")
        marker = json.dumps({"format_version": FORMAT_VERSION, **(notes or {})}) + "\n"
        (root / MARKER).write_text(marker, encoding="utf-8")


def read_notes(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save_params` was given to note about the parameters of a folder, by name.

    Raises:
        CheckpointError: as `load_params`.
    """
    root = Path(directory)
    _params_path(root)
    return read_json(root / MARKER)


def stored_params(directory: str | os.PathLike[str]) -> dict[str, jax.ShapeDtypeStruct]:
    """Path, shape and dtype of every stored parameter; only metadata is read.

    Raises:
        CheckpointError: as `load_params`.
    """
    path = _params_path(Path(directory))
    with _reading(path), _checkpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata
        if metadata is None:
            raise ValueError("it has no metadata")
        return {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for name, leaf in flatten_params(dict(metadata.items())).items()
        }


def iterate_params(
    directory: str | os.PathLike[str], names: Iterable[str] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """The stored parameters one after the other, as numpy arrays in their stored dtypes.

    Memory is bounded by the largest of them.

    Args:
        directory: the folder that holds `params/`.
        names: which ones, by path; None for all.

    Raises:
        CheckpointError: as `load_params`.
    """
    stored = stored_params(directory)
    path = _params_path(Path(directory))
    chosen = list(stored if names is None else names)
    sizes = [stored[n].size * stored[n].dtype.itemsize for n in chosen]
    for batch in batches_of(sizes):
        restored = _restore(
            path, {chosen[i]: ocp.RestoreArgs(restore_type=np.ndarray) for i in batch}
        )
        while restored:
            yield restored.popitem()


def load_params(
    directory: str | os.PathLike[str],
    abstract_tree: Any,
    dtype: Any = None,
    sharding: Any = None,
    store: Callable[[tuple[str, ...], jax.Array], Any] | None = None,
) -> Any:
    """Restore the parameters of a checkpoint folder into the structure of `abstract_tree`.

    Args:
        directory: the folder that holds `params/`.
        abstract_tree: nested dict of arrays or `jax.ShapeDtypeStruct`; only shapes, and shardings
            where the leaves have them, are used.
        dtype: floating-point type of the result; None keeps the stored types. Integers stay.
        sharding: one `jax.sharding.Sharding` for all, or a tree of them like `abstract_tree`; each
            array is read straight onto its devices. None: the leaf's own sharding, or else the
            first device.
        store: (path, array) -> what to keep of it, called as arrays arrive; None keeps them.

    Returns:
        A tree like `abstract_tree` of `jax.Array`, or of what `store` made.

    Raises:
        CheckpointError: no checkpoint, a torch checkpoint, a damaged one, or names and shapes that
            differ from `abstract_tree` (all of them are listed).
    """
    path = _params_path(Path(directory))
    stored = stored_params(directory)
    wanted = flatten_params(abstract_tree)
    _check_match(directory, stored, wanted)
    shardings = _shardings(wanted, sharding)
    types = {
        name: leaf.dtype
        if dtype is None or not jnp.issubdtype(leaf.dtype, jnp.floating)
        else jnp.dtype(dtype)
        for name, leaf in stored.items()
    }
    names = list(wanted)
    restored: dict[str, Any] = {}
    sizes = [stored[name].size * types[name].itemsize for name in names]
    limit = _IN_FLIGHT_BYTES if store is None else _IN_FLIGHT_BYTES_STORED
    for batch in batches_of(sizes, limit):
        arrived = _restore(
            path,
            {
                name: ocp.ArrayRestoreArgs(
                    dtype=types[name], sharding=shardings[name], restore_type=jax.Array
                )
                for name in (names[i] for i in batch)
            },
        )
        if store is not None:
            arrived = {name: store(tuple(name.split("/")), x) for name, x in arrived.items()}
        # Orbax does not wait for the devices: host copies of everything would pile up.
        restored |= jax.block_until_ready(arrived)
    return jax.tree.unflatten(jax.tree.structure(abstract_tree), [restored[n] for n in names])


def _params_path(directory: Path) -> Path:
    """`directory/params`, after checks that give the likeliest mistakes their own message."""
    if not directory.is_dir():
        raise CheckpointError(f"there is no checkpoint folder {directory}.")
    if not (directory / PARAMS).is_dir():
        check_converted(directory)
        raise CheckpointError(f"{directory} is not a converted checkpoint: it has no {PARAMS}/.")
    marker = directory / MARKER
    version = read_json(marker).get("format_version") if marker.exists() else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{directory} has checkpoint format version {version}, and this package reads "
            f"{FORMAT_VERSION}; convert it again or update the package."
        )
    _check_sizes(directory / PARAMS)
    return (directory / PARAMS).absolute()


def _file_sizes(directory: Path) -> dict[str, int]:
    """Bytes of every file below `directory` except the list of sizes itself."""
    return {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / SIZES
    }


def _check_sizes(params: Path) -> None:
    """Notice missing and truncated files before Orbax meets them, and name them."""
    if not (params / SIZES).is_file():
        raise CheckpointError(f"{params} is incomplete, without {SIZES}; convert or copy it again.")
    found = _file_sizes(params)
    wrong = [
        f"{name} has {found.get(name, 0)} of {size} bytes"
        for name, size in read_json(params / SIZES).items()
        if found.get(name) != size
    ]
    if wrong:
        more = ", ..." if len(wrong) > _NAMES_SHOWN else ""
        raise CheckpointError(
            f"{params} is truncated or corrupt ({', '.join(wrong[:_NAMES_SHOWN])}{more}); "
            "convert or copy it again."
        )


def _check_match(directory: Any, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    faults = {
        "missing": sorted(wanted.keys() - stored.keys()),
        "unknown to the model": sorted(stored.keys() - wanted.keys()),
        "of another shape": [
            f"{name} (stored {tuple(stored[name].shape)}, expected {tuple(wanted[name].shape)})"
            for name in wanted.keys() & stored.keys()
            if tuple(stored[name].shape) != tuple(wanted[name].shape)
        ],
    }
    lists = []
    for kind, names in faults.items():
        if names:
            more = ", ..." if len(names) > _NAMES_SHOWN else ""
            lists.append(f"{len(names)} {kind}: {', '.join(names[:_NAMES_SHOWN])}{more}")
    if lists:
        raise CheckpointError(
            f"the parameters in {directory} do not fit the model that its {CONFIG} describes; "
            f"{'; '.join(lists)}."
        )


def _shardings(wanted: Mapping[str, Any], sharding: Any) -> dict[str, Any]:
    if sharding is None or isinstance(sharding, jax.sharding.Sharding):
        default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return {
            name: sharding or getattr(leaf, "sharding", None) or default
            for name, leaf in wanted.items()
        }
    return flatten_params(sharding)


def _restore(path: Path, restore_args: Mapping[str, Any]) -> dict[str, Any]:
    """Read the named parameters only."""
    nested = _nest(restore_args)
    with _reading(path), _checkpointer() as checkpointer:
        restored = checkpointer.restore(
            path,
            args=ocp.args.PyTreeRestore(
                item=jax.tree.map(lambda _: 0, nested),
                restore_args=nested,
                partial_restore=True,
            ),
        )
    return flatten_params(restored)


class _reading:
    """Turns what Orbax and TensorStore raise on damaged files into one `CheckpointError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        # Orbax and TensorStore raise many kinds, a bare Exception among them.
        if isinstance(error, Exception) and not isinstance(
            error, MemoryError | jax.errors.JaxRuntimeError
        ):
            text = str(error).strip().split("\n")[0][:200]
            raise CheckpointError(
                f"{self._path} is corrupt ({text}); convert or copy it again."
            ) from error


def _checkpointer(together: bool = False) -> ocp.Checkpointer:
    """Reads and writes arrays.

    Args:
        together: all processes write their shards of one tree; otherwise no process waits for
            others, each of which may read another checkpoint or none.
    """
    number = None if together or processes.count() == 1 else processes.number()
    hosts = ocp.options.MultiprocessingOptions(
        primary_host=number or 0,
        active_processes=None if number is None else {number},
        barrier_sync_key_prefix=None if number is None else f"process{number}",
    )
    streaming = StreamingHandler()
    registry = ocp.type_handlers.create_type_handler_registry(
        (LazyArray, streaming),
        (np.ndarray, streaming),
        (jax.Array, ocp.type_handlers.ArrayHandler()),
    )
    return ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(
            use_compression=False, type_handler_registry=registry, multiprocessing_options=hosts
        ),
        multiprocessing_options=hosts,
    )


def _as_leaf(leaf: Any) -> Any:
    """A leaf as the handlers take it: `LazyArray`, or `jax.Array` (perhaps on several devices)."""
    if isinstance(leaf, LazyArray | jax.Array):
        return leaf
    array = np.asarray(leaf)
    return LazyArray(array.shape, array.dtype, lambda: array)


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A nested dict with string keys; Orbax then needs no list or integer nodes."""
    root: dict[str, Any] = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        node = root
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return root
