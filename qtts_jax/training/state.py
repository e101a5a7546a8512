"""The training state: everything that a step changes, as one tree of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from qtts_jax.training.mesh import TrainingMesh
from qtts_jax.training.task import Extras, Groups, Task


class TrainState(NamedTuple):
    """The state between two steps.

    Attributes:
        step: int32, steps done.
        params: float32 master weights by group.
        optimizer: optax state by group.
        extras: the task's arrays without gradients.
        average: moving average of `params`, or None.
        key: uint32 data of the run's random key; step and microbatch are folded into it.
        ending: int32 [2], the steps at which the final decay of a run begins and ends (see
            `optimizer.final_factor`); [0, 0] while no end is in sight.
    """

    step: jax.Array
    params: Groups
    optimizer: dict[str, Any]
    extras: Extras
    average: Groups | None
    key: jax.Array
    ending: jax.Array


def first_state(
    params: Groups,
    extras: Extras,
    optimizers: Mapping[str, optax.GradientTransformation],
    key: jax.Array,
    with_average: bool,
) -> TrainState:
    """The state before step 0.

    Args:
        key: the run's random key.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer={name: optimizers[name].init(group) for name, group in params.items()},
        extras=extras,
        average=jax.tree.map(jnp.copy, params) if with_average else None,
        key=jax.random.key_data(key),
        ending=jnp.zeros(2, jnp.int32),
    )


def state_shardings(
    mesh: TrainingMesh,
    task: Task,
    optimizers: Mapping[str, optax.GradientTransformation],
    shapes: TrainState,
) -> TrainState:
    """A sharding for every array of the state.

    Moments and averages are sharded like their parameters. Extras follow the size rule of FSDP,
    since frozen weights may be as large as trained ones.
    """
    axes = task.axes() or {}
    params = {name: mesh.params(group, axes.get(name)) for name, group in shapes.params.items()}
    replicated: Any = mesh.replicated
    return TrainState(
        step=replicated,
        params=params,
        optimizer={
            name: optax.tree_utils.tree_map_params(
                optimizers[name],
                lambda _, sharding: sharding,
                state,
                params[name],
                transform_non_params=lambda _: replicated,
            )
            for name, state in shapes.optimizer.items()
        },
        extras=jax.tree.map(mesh.fsdp, shapes.extras),
        average=None if shapes.average is None else params,
        key=replicated,
        ending=replicated,
    )
