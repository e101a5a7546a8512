"""The loop of every training run: resume, step, watch, log, save, stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from qtts_jax.errors import CheckpointError, ConfigError, TrainingError
from qtts_jax.functional import Params
from qtts_jax.io.atomic_directory import new_directory
from qtts_jax.training import checkpoints
from qtts_jax.training.divergence import DivergenceWatch
from qtts_jax.training.log import RunLog
from qtts_jax.training.mesh import MeshConfig, Placement
from qtts_jax.training.metric_window import Meter
from qtts_jax.training.optimizer import OptimizerConfig, optimizer
from qtts_jax.training.state import TrainState, first_state, state_shardings
from qtts_jax.training.step import make_step
from qtts_jax.training.task import Batches, CountingTask, StartedTask, Task
from qtts_jax.training.time_budget import PieceClock

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrainerConfig:
    """How to train; what to train is the task's.

    Attributes:
        steps: updates of the whole run, over all its pieces.
        optimizers: one for each group of the task, by name.
        seed: of parameters and of every random choice in training.
        accumulate: microbatches of one step.
        steps_per_call: steps that the device does in one go (`lax.scan`), on batches of one shape.
            A GPU does the steps of a small model faster than a host can ask for them. Checkpoints
            and hooks come after the call in which their step is.
        average_decay: of the moving average of the weights; None for no average.
        mesh: devices and how parameters are split over them.
        log_every: steps of one line in the log, which holds the means over them. A piece that
            ends between two lines adds one for its last steps; when the run goes on, the line of
            all of them takes its place.
        save_every: steps between checkpoints; a piece of a run also saves at its end.
        keep: checkpoints kept, the newest ones.
        divergence_margin: see `DivergenceWatch`; None to stop at values that are not finite only.
        tensorboard: also write TensorBoard events.
        progress: show a bar with steps a second and the time left.
    """

    steps: int
    optimizers: Mapping[str, OptimizerConfig]
    seed: int = 0
    accumulate: int = 1
    steps_per_call: int = 1
    average_decay: float | None = None
    mesh: MeshConfig = field(default_factory=MeshConfig)
    log_every: int = 10
    save_every: int = 500
    keep: int = 2
    divergence_margin: float | None = None
    tensorboard: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "steps_per_call", "log_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}.")
        margin = self.divergence_margin
        if margin is not None and not margin > 0:
            raise ConfigError(f"divergence_margin must be above 0 or None, not {margin}.")


class Hook(NamedTuple):
    """Something done beside training every `every` steps (audio samples, a validation loss)."""

    every: int
    run: Callable[[TrainState, RunLog], None]


class Outcome(NamedTuple):
    """How a piece of a run ended.

    Attributes:
        step: steps done.
        finished: all steps are done, the last decay is over, or the data has ended; False when
            time was up.
        checkpoint: the newest one.
    """

    step: int
    finished: bool
    checkpoint: Path


class Trainer:
    """Trains a task in a directory; a second trainer on the same directory goes on.

    One process drives all devices of the mesh.

    Args:
        task: model and losses.
        batches: the data; its position is part of every checkpoint.
        config: how to train.
        directory: of checkpoints and logs.
        hooks: run between steps.
        start: what another run saved with `save_weights`, to begin with where this run has no
            checkpoint of its own; moments and steps begin anew.

    Raises:
        ConfigError: the optimizers do not fit the task's groups, the task counts other microbatches
            a step, or there are too few devices.
    """

    def __init__(
        self,
        task: Task,
        batches: Batches,
        config: TrainerConfig,
        directory: Path,
        hooks: Sequence[Hook] = (),
        start: Path | None = None,
    ) -> None:
        self.task, self.batches, self.config, self.hooks = task, batches, config, hooks
        self.directory, self.start = Path(directory), start
        self.placement = Placement(config.mesh)
        self._optimizers = {name: optimizer(c) for name, c in config.optimizers.items()}
        self._key = jax.random.key(config.seed)
        groups = set(jax.eval_shape(task.init, self._key)[0])
        if groups != set(self._optimizers):
            raise ConfigError(
                f"the task has the groups {sorted(groups)}, but the optimizers are for "
                f"{sorted(self._optimizers)}; give one for each group."
            )
        if isinstance(task, CountingTask) and task.accumulate != config.accumulate:
            raise ConfigError(
                f"the task counts {task.accumulate} microbatches a step, and the trainer does "
                f"{config.accumulate}; give both the same accumulate."
            )
        self._shapes = jax.eval_shape(self._new)
        self.shardings = state_shardings(self.placement, task, self._optimizers, self._shapes)
        step = make_step(
            task, config.optimizers, self._optimizers, config.accumulate, config.average_decay
        )
        # Metrics are whole on every device; the state stays where it lies.
        self._steps = jax.jit(
            lambda state, batches: jax.lax.scan(step, state, batches),
            donate_argnums=0,
            out_shardings=(self.shardings, self.placement.whole),
        )
        self._finite = jax.jit(_all_finite)

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints of the run lie."""
        return self.directory / CHECKPOINTS

    def run(self, max_seconds: float | None = None, decay_seconds: float | None = None) -> Outcome:
        """Train from the newest checkpoint, or from the start, to the last step.

        Args:
            max_seconds: stop cleanly, with a checkpoint, before this time is up; the time that a
                step and a save have taken so far is left for the next of them, and before the
                first save what its bytes take on a slow disk.
            decay_seconds: in the last seconds of this piece, before its save, bring all learning
                rates down to 0 and end the run (`optimizer.final_factor`). A run that is continued
                after its decay goes on at the full rates.

        Raises:
            TrainingError: values are not finite, or the loss diverges; the last good checkpoint
                stays the newest.
            CheckpointError: the newest checkpoint is damaged or of another model, or the disk is
                full.
        """
        if decay_seconds is not None and (max_seconds is None or decay_seconds >= max_seconds):
            raise ConfigError(
                f"a decay over the last {decay_seconds:g} s needs a longer time limit than "
                f"{max_seconds}; give max_seconds too."
            )
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self._shapes))
        clock = PieceClock(max_seconds, decay_seconds, size)
        checkpoints.sweep(self.checkpoints)
        watch = DivergenceWatch(self.config.divergence_margin)
        state, saved, window = self._resume(watch)
        first = int(state.step)
        if 0 < int(state.ending[1]) <= first:
            state = self._end_at(state, 0, 0)
        try:
            with RunLog(self.directory, first, tensorboard=self.config.tensorboard) as log:
                meter = Meter(watch, log, self.config.log_every, first, window)
                try:
                    return self._loop(state, saved, meter, log, clock)
                finally:
                    meter.flush()
        except TrainingError as error:
            kept = checkpoints.checkpoints(self.checkpoints)
            last = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was made"
            raise TrainingError(
                f"training stopped: {str(error).rstrip('.')}; {last}; lower the learning rate or "
                "mend the data, then run again."
            ) from error

    def newest(self) -> TrainState:
        """The state of the newest checkpoint, to export or to evaluate it.

        Raises:
            CheckpointError: it is damaged or of another model, or there is none.
        """
        found = checkpoints.checkpoints(self.checkpoints)
        if not found:
            raise CheckpointError(f"there is no checkpoint in {self.checkpoints}; train first.")
        return checkpoints.restore(found[-1], self._shapes, self.shardings)[0]

    def save_weights(self, directory: Path) -> Path:
        """Save the newest weights (averaged ones, if there are) and extras, to start other runs.

        Without the moments this is a third or a quarter of a checkpoint.

        Args:
            directory: a folder for them alone; all that is in it is replaced.

        Returns:
            the checkpoint `directory/step_NUMBER`, which `checkpoints.pack` takes.

        Raises:
            CheckpointError: there is no checkpoint, or the disk is full.
        """
        state = self.newest()
        params = state.params if state.average is None else state.average
        weights = state._replace(params=params, optimizer={}, average=None)
        run = {"step": int(state.step), "data": None, "watch": None}
        # Whole or not at all: weights of another run may be there, of any step.
        with new_directory(directory, overwrite=True, markers=("step_*",)) as partial:
            name = checkpoints.save(partial, weights, run, keep=1).name
        return directory / name

    def _loop(
        self, state: TrainState, saved: int, meter: Meter, log: RunLog, clock: PieceClock
    ) -> Outcome:
        c, first = self.config, int(state.step)
        position = self.batches.state()
        step, end = first, int(state.ending[1]) or c.steps
        batches, count = self._take(min(end, c.steps) - first)
        with tqdm(
            total=c.steps, initial=first, unit="step", disable=not c.progress, smoothing=0.05
        ) as bar:
            while count and step < min(end, c.steps) and not clock.is_up():
                if end == c.steps and clock.decays():
                    # Whole calls, since a shorter one would be compiled anew.
                    end = step + count * max(clock.steps_left() // count, 1)
                    state = self._end_at(state, step, end)
                state, metrics = self._steps(state, batches)
                done, step = count, step + count
                # The device works while the host makes the next batches and looks at the metrics
                # of the call before.
                position = self.batches.state()
                batches, count = self._take(min(end, c.steps) - step)
                meter.add(step, metrics)
                clock.stepped(done)
                bar.update(done)
                bar.set_postfix(loss=f"{meter.loss:.4g}", refresh=False)
                due = [hook for hook in self.hooks if step % hook.every < done]
                if due:
                    meter.settle()
                    for hook in due:
                        hook.run(state, log)
                if step % c.save_every < done:
                    meter.settle()
                    self._save(state, position, meter, clock)
                    saved = step
        meter.settle()
        if saved != step:
            self._save(state, position, meter, clock)
        finished = step >= min(end, c.steps) or not count
        return Outcome(step, finished, checkpoints.checkpoints(self.checkpoints)[-1])

    def _new(self, start: Params | None = None) -> TrainState:
        """The state before step 0; `start` takes the place of the task's own start parameters."""
        task, key = self.task, jax.random.fold_in(self._key, 0)
        if start is not None and isinstance(task, StartedTask):
            params, extras = task.init(key, start)
        else:
            params, extras = task.init(key)
        return first_state(
            params,
            extras,
            self._optimizers,
            jax.random.fold_in(self._key, 1),
            self.config.average_decay is not None,
        )

    def _first(self) -> TrainState:
        """The state before step 0, on the devices."""
        # Copied, since steps donate the state and the task may hold the arrays it began with.
        if self.placement.mesh.size == 1:
            return jax.device_put(self._new(), self.shardings, may_alias=False)
        # One program for all devices: what they split is never whole on one of them.
        start = self.task.start if isinstance(self.task, StartedTask) else None
        places = jax.tree.map(self.placement.fsdp, start)
        start = jax.device_put(start, places, may_alias=False)
        return jax.jit(self._new, out_shardings=self.shardings)(start)

    def _resume(self, watch: DivergenceWatch) -> tuple[TrainState, int, dict[str, Any]]:
        """The state to go on from, the step of its checkpoint (-1 for none), the open window."""
        found = checkpoints.checkpoints(self.checkpoints)
        if not found:
            state = self._first() if self.start is None else self._started(self.start)
            return self._counted(state), -1, {}
        state, run = checkpoints.restore(found[-1], self._shapes, self.shardings)
        self.batches.restore(run["data"])
        watch.restore(run["watch"])
        return self._counted(state), int(state.step), run.get("window", {})

    def _started(self, start: Path) -> TrainState:
        """The first state, with the weights and extras of another run."""
        new = self._first()
        shapes, places = (
            x._replace(optimizer={}, average=None) for x in (self._shapes, self.shardings)
        )
        given = checkpoints.restore(start, shapes, places)[0]
        average = None if new.average is None else jax.tree.map(jnp.copy, given.params)
        return new._replace(params=given.params, extras=given.extras, average=average)

    def _counted(self, state: TrainState) -> TrainState:
        """With what the task counts in its extras as it is after the steps of this run."""
        if not isinstance(self.task, CountingTask):
            return state
        extras = self.task.at_step(state.extras, int(state.step))
        return state._replace(extras=jax.device_put(extras, self.shardings.extras))

    def _end_at(self, state: TrainState, first: int, last: int) -> TrainState:
        ending = jax.device_put(np.asarray([first, last], np.int32), self.placement.whole)
        return state._replace(ending=ending)

    def _take(self, most: int) -> tuple[dict[str, jax.Array], int]:
        """The batches of the next call, [steps, rows, ...] on the devices, and their number."""
        taken: list[dict[str, np.ndarray]] = []
        for _ in range(min(self.config.steps_per_call, most)):
            try:
                taken.append(next(self.batches))
            except StopIteration:
                break
        if not taken:
            return {}, 0
        return self.placement.put(taken, self.config.accumulate), len(taken)

    def _save(
        self, state: TrainState, position: dict[str, Any], meter: Meter, clock: PieceClock
    ) -> None:
        if not bool(self._finite(state)):
            raise TrainingError(f"the state after step {int(state.step)} is not finite")
        with clock.saving():
            run = {"step": int(state.step), "data": position, **meter.state()}
            checkpoints.save(self.checkpoints, state, run, self.config.keep)


def _all_finite(state: TrainState) -> jax.Array:
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in floats]))
