"""The compiled programs of a run: its first state, the steps of a call, a check of its values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params
from qtts_jax.training.mesh import TrainingMesh
from qtts_jax.training.optimizer import optimizer
from qtts_jax.training.state import TrainState, first_state, state_shardings
from qtts_jax.training.step import make_step
from qtts_jax.training.task import Task
from qtts_jax.training.trainer_config import TrainerConfig


class TrainingPrograms:
    """What the devices of a run compute, and where every array of its state lies on them.

    Args:
        task: model and losses.
        mesh: the devices.
        config: settings of the run.

    Attributes:
        shapes: of the state (`jax.ShapeDtypeStruct`).
        shardings: of the state.
        steps: (state, batches [steps, rows, ...]) -> (state, metrics [steps]), compiled once for
            each shape of the batches; the state is donated.

    Raises:
        ConfigError: the optimizers do not fit the task's groups, or the task counts other
            microbatches a step.
    """

    def __init__(self, task: Task, mesh: TrainingMesh, config: TrainerConfig) -> None:
        self._task, self._mesh = task, mesh
        self._optimizers = {name: optimizer(c) for name, c in config.optimizers.items()}
        self._averages = config.average_decay is not None
        self._key = jax.random.key(config.seed)
        groups = set(jax.eval_shape(task.init, self._key)[0])
        if groups != set(self._optimizers):
            raise ConfigError(
                f"the task has the groups {sorted(groups)}, but the optimizers are for "
                f"{sorted(self._optimizers)}; give one for each group."
            )
        if task.accumulate not in (None, config.accumulate):
            raise ConfigError(
                f"the task counts {task.accumulate} microbatches a step, and the trainer does "
                f"{config.accumulate}; give both the same accumulate."
            )
        self.shapes = jax.eval_shape(self.new)
        self.shardings = state_shardings(mesh, task, self._optimizers, self.shapes)
        step = mesh.traced(
            make_step(
                task, config.optimizers, self._optimizers, config.accumulate, config.average_decay
            )
        )
        # Metrics are replicated; the state keeps its shardings.
        self.steps = jax.jit(
            lambda state, batches: jax.lax.scan(step, state, batches),
            donate_argnums=0,
            out_shardings=(self.shardings, mesh.replicated),
        )
        self._finite = jax.jit(_all_finite)

    def new(self, start: Params | None = None) -> TrainState:
        """The state before step 0; `start` replaces the task's own start parameters."""
        params, extras = self._task.init(jax.random.fold_in(self._key, 0), start)
        return first_state(
            params, extras, self._optimizers, jax.random.fold_in(self._key, 1), self._averages
        )

    def first(self) -> TrainState:
        """The state before step 0, on the devices."""
        # Copied, since steps donate the state and the task may hold the arrays it began with.
        if self._mesh.mesh.size == 1:
            return jax.device_put(self.new(), self.shardings, may_alias=False)
        # One program for all devices: a split parameter is never whole on one of them.
        start = self._task.start
        start = jax.device_put(start, jax.tree.map(self._mesh.fsdp, start), may_alias=False)
        return jax.jit(self.new, out_shardings=self.shardings)(start)

    def counted(self, state: TrainState) -> TrainState:
        """The state with the task's counters set to the steps of this run (`Task.at_step`)."""
        extras = self._task.at_step(state.extras, int(state.step))
        return state._replace(extras=jax.device_put(extras, self.shardings.extras))

    def ending(self, state: TrainState, first: int, last: int) -> TrainState:
        """The state with a final decay from step `first` to step `last`; 0 and 0 for none."""
        steps = jax.device_put(np.asarray([first, last], np.int32), self._mesh.replicated)
        return state._replace(ending=steps)

    def is_finite(self, state: TrainState) -> bool:
        """Whether no array of the state holds NaN or infinity; waits for the devices."""
        return bool(self._finite(state))


def _all_finite(state: TrainState) -> jax.Array:
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in floats]))
