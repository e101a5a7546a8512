"""Shardings of parameters, optimizer state and batches: data parallel, FSDP, model axis."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from qtts_jax.errors import ConfigError, TrainingError
from qtts_jax.functional import Params
from qtts_jax.placement import traced_for
from qtts_jax.sharding import axis_sizes, mesh_axes, named_mesh, shardings

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class MeshConfig:
    """Devices of a run.

    Attributes:
        data: devices over which the rows of a batch are split.
        fsdp: devices over which rows, parameters and optimizer state are split (fully sharded data
            parallel); the compiler gathers each parameter where it is used.
        model: devices over which heads, feed-forward width and vocabulary are split
            (`sharding.RULES`); above 1 it needs a task that declares its axes (`Task.axes`).
        fsdp_min_size: parameters with fewer elements are replicated.
    """

    data: int = 1
    fsdp: int = 1
    model: int = 1
    fsdp_min_size: int = 1 << 16

    @classmethod
    def parse(cls, text: str) -> MeshConfig:
        """The configuration that a text such as "data=4,fsdp=2" describes.

        Raises:
            ConfigError: it has another form, or names another axis or one twice.
        """
        return cls(**axis_sizes(text, ("data", "fsdp", "model")))


class TrainingMesh:
    """The mesh of a configuration, and the shardings of arrays on it.

    Args:
        devices: as in `sharding.make_mesh`.
    """

    def __init__(self, config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> None:
        self.config = config
        sizes = {"data": config.data, "fsdp": config.fsdp, "model": config.model}
        self.mesh: Mesh = named_mesh(sizes, devices)
        self.devices = config.data * config.fsdp
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.rows = NamedSharding(self.mesh, PartitionSpec(None, mesh_axes(self.mesh, "batch")))

    def traced(self, function: Function) -> Function:
        """`function`, traced for the devices of this mesh (`placement.py`)."""

        @functools.wraps(function)
        def run(*args: Any) -> Any:
            with traced_for(self.mesh):
                return function(*args)

        return cast(Function, run)

    def params(self, shapes: Params, axes: Params | None) -> Params:
        """A sharding for every parameter; `axes` as in `sharding.shardings`, None for no names.

        Raises:
            ConfigError: the mesh has a model axis but the task declares no axes.
        """
        if axes is None:
            if self.config.model > 1:
                raise ConfigError(
                    "this task declares no logical axes, so its parameters cannot be split over "
                    "the model axis; use model=1."
                )
            return jax.tree.map(self.fsdp, shapes)
        # Nothing is sampled in training, so logits of codes may be split, too.
        axes = jax.tree.map(
            lambda name: "vocab" if name == "codec_vocab" else name,
            axes,
            is_leaf=lambda x: x is None,
        )
        named = shardings(self.mesh, axes, shapes)
        return jax.tree.map(
            lambda x, s: self.fsdp(x, [*s.spec] + [None] * (len(x.shape) - len(s.spec))),
            shapes,
            named,
        )

    def fsdp(self, leaf: Any, spec: list[Any] | None = None) -> NamedSharding:
        """Shard over `fsdp` the longest dimension that divides and that `spec` does not shard."""
        c, spec = self.config, spec or [None] * len(leaf.shape)
        if c.fsdp > 1 and np.prod(leaf.shape) >= c.fsdp_min_size:
            free = [
                i for i, n in enumerate(leaf.shape) if spec[i] is None and n and n % c.fsdp == 0
            ]
            if free:
                spec[max(free, key=lambda i: leaf.shape[i])] = "fsdp"
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def put(
        self, batches: Sequence[dict[str, np.ndarray]], accumulate: int
    ) -> dict[str, jax.Array]:
        """Copy batches of the same shapes to the devices, as [steps, rows, ...], rows over `data`.

        Raises:
            TrainingError: shapes differ, or the rows do not divide into `accumulate` microbatches
                on every device.
        """
        shapes = [{name: np.shape(x) for name, x in batch.items()} for batch in batches]
        for shape in shapes:
            if shape != shapes[0]:
                raise TrainingError(
                    f"batches of one call must have the same shapes, not {shapes[0]} and {shape}; "
                    "use the steps_per_call that the run began with, or 1."
                )
        batch = batches[0]
        rows = {name: np.shape(x)[0] if np.ndim(x) else 0 for name, x in batch.items()}
        count, parts = next(iter(rows.values()), 0), self.devices * accumulate
        if len(set(rows.values())) != 1 or not count or count % parts:
            raise TrainingError(
                f"a batch must have a multiple of {parts} rows ({self.devices} devices x "
                f"{accumulate} microbatches), the same in every array, not {rows}."
            )
        stacked = {name: np.stack([b[name] for b in batches]) for name in batch}
        if self.rows.is_fully_addressable:
            return jax.device_put(stacked, self.rows)
        # Every process has the whole batch and copies its rows; `device_put` would compare all of
        # it between the processes.
        return {
            name: jax.make_array_from_callback(x.shape, self.rows, x.__getitem__)
            for name, x in stacked.items()
        }
