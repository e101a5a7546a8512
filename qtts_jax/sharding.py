"""Meshes of devices, and the shardings of arrays on them from one table of logical axes.

Models name the axes of their parameters and never mention a mesh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from qtts_jax.checks import is_whole_number
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params

# Logical axis of a parameter, an activation, a cache or a batch -> mesh axes, of which a mesh may
# lack some. Other axes are replicated. The vocabulary of codes is: sampling from split logits would
# be most of the communication of a frame.
RULES: Mapping[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "heads": ("model",),
    "ffn": ("model",),
    "vocab": ("model",),
    "codec_vocab": (),
}
# Logical axes of keys and values [B, S, K, h] (`layers/attention.py`).
CACHE_AXES = ("batch", None, "heads", None)
AXES = ("data", "model")


def make_mesh(data: int = 1, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of data x model devices.

    Args:
        data: devices over which the rows of a batch, their caches and states are split.
        model: devices over which heads, feed-forward width and the text vocabulary are split.
        devices: the devices to take the first from; None for all of this program.

    Raises:
        ConfigError: a size is no positive whole number, there are fewer devices, or the mesh has
            none of some process.
    """
    return named_mesh({"data": data, "model": model}, devices)


def named_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with these axes; arguments and errors as `make_mesh`."""
    for name, size in sizes.items():
        if not is_whole_number(size, 1):
            raise ConfigError(
                f"a mesh axis is a whole number of devices from 1 on, not {name}={size!r}."
            )
    count, shape = int(np.prod(list(sizes.values()))), " x ".join(map(str, sizes.values()))
    found = jax.devices() if devices is None else list(devices)
    if count > len(found):
        raise ConfigError(
            f"a {shape} mesh needs {count} devices, but there are {len(found)}; make the mesh "
            "smaller."
        )
    chosen = found[:count]
    absent = {d.process_index for d in found} - {d.process_index for d in chosen}
    if absent:
        raise ConfigError(
            f"a {shape} mesh has no device of process {min(absent)}, which would then wait for "
            f"ever; make it one of all {len(found)} devices."
        )
    kinds = (jax.sharding.AxisType.Auto,) * len(sizes)
    return Mesh(np.asarray(chosen).reshape(tuple(sizes.values())), tuple(sizes), axis_types=kinds)


def axis_sizes(text: str, names: Sequence[str] = AXES) -> dict[str, int]:
    """Sizes of mesh axes from a text such as "data=2,model=4".

    Raises:
        ConfigError: it has another form, or names another axis or one twice.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = (s.strip() for s in part.partition("="))
        if name not in names or name in sizes or not size.isascii() or not size.isdigit():
            example = ",".join(f"{n}=2" for n in names)
            raise ConfigError(f"a mesh is described like {example!r}, not {text!r}.")
        sizes[name] = int(size)
    return sizes


def parse_mesh(text: str, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh that a text such as "data=2,model=4" describes; absent axes have the size 1.

    Args:
        devices: as of `make_mesh`.

    Raises:
        ConfigError: as `axis_sizes` and `make_mesh`.
    """
    sizes = axis_sizes(text)
    return make_mesh(sizes.get("data", 1), sizes.get("model", 1), devices)


def check_mesh(mesh: Any) -> None:
    """Check that inference can run on a mesh.

    Raises:
        ConfigError: it is no mesh, or lacks an axis.
    """
    if not isinstance(mesh, Mesh | AbstractMesh):
        raise ConfigError(
            f"mesh is a {type(mesh).__name__}; make one by make_mesh(data=2, model=4)."
        )
    absent = [name for name in AXES if name not in mesh.axis_names]
    if absent:
        raise ConfigError(
            f"the mesh has the axes {', '.join(map(str, mesh.axis_names))} but none named "
            f"{' or '.join(absent)}; make one by make_mesh(data=2, model=4)."
        )


def mesh_of(tree: Any) -> Mesh | None:
    """The mesh on which the arrays of a tree are placed; None where that is a single device."""
    for leaf in jax.tree.leaves(tree):
        placed = getattr(leaf, "sharding", None)
        mesh = placed.mesh if isinstance(placed, NamedSharding) else None
        return mesh if isinstance(mesh, Mesh) else None
    return None


def whole(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device has wholly."""
    return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
    """The sharding of an array whose first dimension is the rows of a batch."""
    return NamedSharding(mesh, PartitionSpec(mesh_axes(mesh, "batch")))


def mesh_axes(mesh: Mesh | AbstractMesh, name: str | None) -> str | tuple[str, ...] | None:
    """The axes of a mesh over which a logical axis is split, as an entry of a `PartitionSpec`."""
    axes = tuple(axis for axis in RULES.get(name or "", ()) if axis in mesh.axis_names)
    return (axes[0] if len(axes) == 1 else axes) or None


def parts(mesh: Mesh | AbstractMesh, name: str | None) -> int:
    """Into how many parts a logical axis is split on a mesh."""
    return int(
        np.prod([mesh.shape[axis] for axis in RULES.get(name or "", ()) if axis in mesh.shape])
    )


def named(mesh: Mesh, axes: Sequence[str | None], shape: Sequence[int]) -> NamedSharding:
    """The sharding of one array; a dimension that its mesh axis does not divide is replicated.

    Args:
        axes: a logical name (or None) for each dimension.
        shape: the dimensions.
    """
    spec = [
        None if size % parts(mesh, name) else mesh_axes(mesh, name)
        for name, size in zip(axes, shape, strict=True)
    ]
    return NamedSharding(mesh, PartitionSpec(*spec))


def shardings(mesh: Mesh, axes: Params, shapes: Params) -> Params:
    """A `NamedSharding` for every parameter; see `named`.

    Args:
        axes: logical axis names of every parameter (`functional.logical_axes`).
        shapes: the same tree of arrays or `jax.ShapeDtypeStruct`.
    """
    return jax.tree.map(
        lambda names, leaf: named(mesh, names, leaf.shape),
        axes,
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )
