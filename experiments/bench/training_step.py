"""Library of the benchmarks: a training step of a task, compiled, with the state it begins with."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from experiments import command
from qtts_jax.training.mesh import TrainingMesh
from qtts_jax.training.optimizer import OptimizerConfig, optimizer
from qtts_jax.training.state import TrainState, first_state, state_shardings
from qtts_jax.training.step import make_step
from qtts_jax.training.task import Task


@dataclass(frozen=True)
class Begun:
    """The state of a task before its first step.

    Attributes:
        state: on the devices of the mesh.
        step: (state, batch) -> (state, metrics), not compiled yet; it donates the state.
    """

    state: TrainState
    step: Any

    def parameters_m(self) -> float:
        """Trained parameters, in millions."""
        return sum(x.size for x in jax.tree.leaves(self.state.params)) / 1e6

    def compiled(self, batch: dict[str, jax.Array]) -> tuple[Any, float]:
        """The step for batches of this shape, and the seconds that compiling it took."""
        started = time.perf_counter()
        step = self.step.lower(self.state, batch).compile()
        return step, time.perf_counter() - started


def begin(
    task: Task, rules: Mapping[str, OptimizerConfig], mesh: TrainingMesh, accumulate: int
) -> Begun:
    """The state of a task and its step.

    Args:
        rules: of the optimizers, by group of parameters.
        accumulate: microbatches of a step.
    """
    updates = {name: optimizer(rule) for name, rule in rules.items()}

    def start() -> TrainState:
        params, extras = task.init(jax.random.key(0))
        return first_state(params, extras, updates, jax.random.key(1), False)

    shardings = state_shardings(mesh, task, updates, jax.eval_shape(start))
    step = jax.jit(
        mesh.traced(make_step(task, rules, updates, accumulate, None)),
        donate_argnums=0,
        out_shardings=(shardings, mesh.replicated),
    )
    return Begun(jax.jit(start, out_shardings=shardings)(), step)


def peak_gb() -> float | None:
    """The most memory that was used on the first device; None where it is not known."""
    memory = jax.devices()[0].memory_stats() or {}
    return memory.get("peak_bytes_in_use", 0) / 1e9 or None


if __name__ == "__main__":
    raise SystemExit(
        command.exit_status_of_library(
            __file__, "experiments.bench.train", "experiments.bench.post_train"
        )
    )
