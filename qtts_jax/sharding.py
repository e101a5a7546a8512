"""Mesh and shardings from one table of logical axes; models never mention a mesh."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params

# Logical axis of a parameter -> mesh axis. Heads, feed-forward width and vocabulary are split
# over `model`; everything else is replicated. Batches are split over `data`.
RULES: dict[str, str | None] = {
    "heads": "model",
    "ffn": "model",
    "vocab": "model",
}


def make_mesh(data: int = 1, model: int = 1) -> Mesh:
    """A mesh of data x model devices.

    Raises:
        ConfigError: there are fewer devices.
    """
    if data * model > len(jax.devices()):
        raise ConfigError(
            f"a {data} x {model} mesh needs {data * model} devices, but there are "
            f"{len(jax.devices())}; make the mesh smaller."
        )
    devices = jax.devices()[: data * model]
    kinds = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((data, model), ("data", "model"), axis_types=kinds, devices=devices)


def shardings(mesh: Mesh, axes: Params, shapes: Params) -> Params:
    """A `NamedSharding` for every parameter.

    A dimension that its mesh axis does not divide (the 2 key/value heads of a small model on 8
    devices) is replicated.

    Args:
        axes: logical axis names of every parameter (`functional.logical_axes`).
        shapes: the same tree of arrays or `ShapeDtypeStruct`.
    """

    def one(names: tuple[str | None, ...], leaf: Any) -> NamedSharding:
        spec = []
        for name, size in zip(names, leaf.shape, strict=True):
            axis = RULES.get(name) if name else None
            spec.append(axis if axis and size % mesh.shape[axis] == 0 else None)
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(one, axes, shapes, is_leaf=lambda x: isinstance(x, tuple))
