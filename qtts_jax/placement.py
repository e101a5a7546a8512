"""Programs on one device or on a mesh: what is traced for which devices, and rows split over them.

A program is traced for the devices that its parameters are on, whatever else the host has: layers
choose their kernels by `platform` and `single_device`, which the program sets while it is traced.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from qtts_jax.sharding import CACHE_AXES, mesh_axes, named, parts, rows

Function = TypeVar("Function", bound=Callable[..., Any])
Tree = TypeVar("Tree")

# Mesh of the program that is being traced, and over how many devices XLA splits what is traced now;
# None for the default device.
_traced: contextvars.ContextVar[tuple[Mesh, int] | None] = contextvars.ContextVar(
    "traced", default=None
)


@contextlib.contextmanager
def traced_for(mesh: Mesh | None, devices: int | None = None) -> Iterator[None]:
    """A context in which layers are traced for the devices of `mesh`; None for the default device.

    Args:
        devices: over how many XLA splits what is traced; by default all of the mesh, 1 inside
            `jax.shard_map`.
    """
    here = None if mesh is None else (mesh, devices or mesh.size)
    token = _traced.set(here)
    try:
        yield
    finally:
        _traced.reset(token)


def platform() -> str:
    """Platform ("cpu", "gpu", "tpu") of the program that is being traced."""
    here = _traced.get()
    return jax.default_backend() if here is None else str(here[0].devices.flat[0].platform)


def single_device() -> bool:
    """Whether what is being traced runs on one device, so that XLA does not have to split it."""
    here = _traced.get()
    return here is None or here[1] == 1


def row_count(mesh: Mesh | None) -> int:
    """Rows of a batch are a multiple of this: the size of the data axis, 1 without a mesh."""
    return 1 if mesh is None else parts(mesh, "batch")


def split_rows(x: jax.Array) -> jax.Array:
    """Constrain an activation whose first dimension is rows of a batch to be split over them.

    Otherwise XLA may split it like a parameter that it meets, and then move all of it.
    """
    here = _traced.get()
    if here is None or here[1] == 1 or x.shape[0] % parts(here[0], "batch"):
        return x
    split: jax.Array = jax.lax.with_sharding_constraint(x, rows(here[0]))
    return split


def heads_whole() -> bool:
    """Whether what is being traced has all heads of attention on every device."""
    here = _traced.get()
    return here is None or here[1] == 1 or parts(here[0], "heads") == 1


def traced_mesh() -> Mesh | None:
    """The mesh over which XLA splits what is being traced; None for one device."""
    here = _traced.get()
    return None if here is None or here[1] == 1 else here[0]


def per_shard(function: Function, mesh: Mesh | None, whole: int = 1) -> Function:
    """`function` run on every shard of the rows by itself, with no communication between them.

    Every shard is traced for one device, so the kernels of a single device are used. Devices along
    other axes of the mesh do the same work.

    Args:
        function: (*whole, *rows) -> a tree; all leaves of `rows` and of the result have the rows of
            the batch first.
        whole: the first arguments, which every device has wholly, such as parameters.
    """

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        with traced_for(mesh, 1):
            return function(*args)

    if mesh is None or mesh.size == 1:
        return cast(Function, run)
    split = PartitionSpec(mesh_axes(mesh, "batch"))

    @functools.wraps(function)
    def split_run(*args: Any) -> Any:
        specs = (PartitionSpec(),) * whole + (split,) * (len(args) - whole)
        mapped = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
        return mapped(*args)

    return cast(Function, split_run)


def place_rows(tree: Tree, mesh: Mesh | None, *, heads: bool = True) -> Tree:
    """Constrain traced arrays with the rows of a batch first to their devices.

    Rows that the data axis does not divide, such as a single one, are whole on every device.

    Args:
        heads: arrays of four dimensions are caches [B, S, K, h], whose heads are split, too.
    """
    if mesh is None:
        return tree

    def place(x: jax.Array) -> jax.Array:
        cache = heads and x.ndim == len(CACHE_AXES)
        axes = CACHE_AXES if cache else ("batch", *[None] * (x.ndim - 1))
        placed: jax.Array = jax.lax.with_sharding_constraint(x, named(mesh, axes, x.shape))
        return placed

    placed: Tree = jax.tree.map(place, tree)
    return placed


def row_sharding(mesh: Mesh | None) -> NamedSharding | None:
    """Where `jax.device_put` puts arrays with the rows of a batch first; None without a mesh."""
    return None if mesh is None else rows(mesh)


def fetch(tree: Any) -> Any:
    """A tree of arrays as numpy, also where other processes have parts of them."""
    return jax.tree.map(_on_host, tree)


def _on_host(x: Any) -> np.ndarray:
    if isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated:
        from jax.experimental import multihost_utils  # slow to import

        x = multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)
