"""The loop of every training run: resume, step, watch, log, save, stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from qtts_jax.errors import CheckpointError, ConfigError, TrainingError
from qtts_jax.training import checkpoints
from qtts_jax.training.log import RunLog
from qtts_jax.training.optimizer import OptimizerConfig, optimizer
from qtts_jax.training.placement import MeshConfig, Placement
from qtts_jax.training.state import TrainState, first_state, state_shardings
from qtts_jax.training.step import make_step
from qtts_jax.training.task import Batches, Task
from qtts_jax.training.watch import Watch

CHECKPOINTS = "checkpoints"
# Calls of a piece that are not counted in its speed: they compile.
_COMPILING = 2
# Share of the steps that would fit into the rest of a piece: hooks and saves take time too.
_CAUTION = 0.9


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
        log_every: steps of one line in the log, which holds the means over them.
        save_every: steps between checkpoints; a piece of a run also saves at its end.
        keep: checkpoints kept, the newest ones.
        divergence_margin: see `Watch`; None to stop at values that are not finite only.
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
        ConfigError: the optimizers do not fit the task's groups, or there are too few devices.
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
                step and a save have taken so far is left for the next of them.
            decay_seconds: in the last seconds of this piece bring all learning rates down to 0 and
                end the run (`optimizer.final_factor`). A run that is continued after its decay
                goes on at the full rates.

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
        clock = _Clock(max_seconds, decay_seconds)
        checkpoints.sweep(self.checkpoints)
        watch = Watch(self.config.divergence_margin)
        state, saved = self._resume(watch)
        first = int(state.step)
        if 0 < int(state.ending[1]) <= first:
            state = self._end_at(state, 0, 0)
        try:
            with RunLog(self.directory, first, tensorboard=self.config.tensorboard) as log:
                return self._loop(state, saved, watch, log, clock)
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
            directory: a folder for them; earlier weights in it are removed.

        Returns:
            the checkpoint `directory/step_NUMBER`, which `checkpoints.pack` takes.

        Raises:
            CheckpointError: there is no checkpoint, or the disk is full.
        """
        state = self.newest()
        params = state.params if state.average is None else state.average
        weights = state._replace(params=params, optimizer={}, average=None)
        run = {"step": int(state.step), "data": None, "watch": None}
        return checkpoints.save(directory, weights, run, keep=1)

    def _loop(
        self, state: TrainState, saved: int, watch: Watch, log: RunLog, clock: _Clock
    ) -> Outcome:
        c, first = self.config, int(state.step)
        position = self.batches.state()
        meter = _Meter(watch, log, c.log_every)
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
                    self._save(state, position, watch, clock)
                    saved = step
        meter.settle()
        if saved != step:
            self._save(state, position, watch, clock)
        finished = step >= min(end, c.steps) or not count
        return Outcome(step, finished, checkpoints.checkpoints(self.checkpoints)[-1])

    def _new(self) -> TrainState:
        params, extras = self.task.init(jax.random.fold_in(self._key, 0))
        return first_state(
            params,
            extras,
            self._optimizers,
            jax.random.fold_in(self._key, 1),
            self.config.average_decay is not None,
        )

    def _resume(self, watch: Watch) -> tuple[TrainState, int]:
        """The state to go on from, and the step of its checkpoint, -1 for none."""
        found = checkpoints.checkpoints(self.checkpoints)
        if not found and self.start is not None:
            return self._started(self.start), -1
        if not found:
            # Copied, since steps donate the state and the task may hold the arrays it began with.
            return jax.device_put(self._new(), self.shardings, may_alias=False), -1
        state, run = checkpoints.restore(found[-1], self._shapes, self.shardings)
        self.batches.restore(run["data"])
        watch.restore(run["watch"])
        return state, int(state.step)

    def _started(self, start: Path) -> TrainState:
        """The first state, with the weights and extras of another run."""
        new = self._new()
        shapes, places = (
            x._replace(optimizer={}, average=None) for x in (self._shapes, self.shardings)
        )
        given = checkpoints.restore(start, shapes, places)[0]
        average = None if new.average is None else jax.tree.map(jnp.copy, given.params)
        new = new._replace(params=given.params, extras=given.extras, average=average)
        return jax.device_put(new, self.shardings, may_alias=False)

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
        self, state: TrainState, position: dict[str, Any], watch: Watch, clock: _Clock
    ) -> None:
        if not bool(self._finite(state)):
            raise TrainingError(f"the state after step {int(state.step)} is not finite")
        with clock.saving():
            run = {"step": int(state.step), "data": position, "watch": watch.state()}
            checkpoints.save(self.checkpoints, state, run, self.config.keep)


def _all_finite(state: TrainState) -> jax.Array:
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in floats]))


class _Meter:
    """Looks at the metrics of each call once the next one is under way, and logs their means."""

    def __init__(self, watch: Watch, log: RunLog, every: int) -> None:
        self._watch, self._log, self._every = watch, log, every
        # The last step of a call, and the metrics [steps] of all of its steps.
        self._waiting: tuple[int, Any] | None = None
        self._sums: dict[str, float] = {}
        self._count = 0
        self._started = time.monotonic()
        self.loss = float("nan")

    def add(self, step: int, metrics: Any) -> None:
        self.settle()
        self._waiting = (step, metrics)

    def settle(self) -> None:
        """Wait for the call in flight and judge its steps."""
        if self._waiting is None:
            return
        (last, metrics), self._waiting = self._waiting, None
        found = {name: values.tolist() for name, values in jax.device_get(metrics).items()}
        for i, step in enumerate(range(last - len(found["loss"]) + 1, last + 1)):
            self._judge(step, {name: values[i] for name, values in found.items()})

    def _judge(self, step: int, values: dict[str, float]) -> None:
        self._watch.check(step, values)
        self.loss = values["loss"]
        self._count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if step % self._every == 0:
            now = time.monotonic()
            means = {name: total / self._count for name, total in self._sums.items()}
            rate = self._count / max(now - self._started, 1e-9)
            self._log.scalars(step, means | {"steps_per_second": rate})
            self._sums, self._count, self._started = {}, 0, now


class _Clock:
    """Whether another call and the save after it still fit into the time of this piece."""

    def __init__(self, max_seconds: float | None, decay_seconds: float | None) -> None:
        now = time.monotonic()
        self._end = None if max_seconds is None else now + max_seconds
        self._decay = decay_seconds
        self._call = self._save = 0.0
        self._last = now
        self._calls, self._steps, self._stepping = 0, 0, 0.0

    def is_up(self) -> bool:
        left = float("inf") if self._end is None else self._end - time.monotonic()
        return left < self._call + 1.5 * self._save

    def stepped(self, count: int) -> None:
        """One more call, of so many steps, is done."""
        now = time.monotonic()
        taken, self._last = now - self._last, now
        self._calls += 1
        if self._calls > _COMPILING:
            self._call = taken
            self._steps += count
            self._stepping += taken

    def decays(self) -> bool:
        """Whether the time of the last decay has come."""
        if self._decay is None or self._end is None or not self._steps:
            return False
        return self._end - time.monotonic() < self._decay

    def steps_left(self) -> int:
        """How many steps, at their mean pace so far, fit before the end and its save."""
        pace = self._stepping / self._steps
        left = self._end - time.monotonic() - 2 * self._save if self._end is not None else 0.0
        return max(1, int(_CAUTION * left / max(pace, 1e-9)))

    def saving(self) -> _Clock:
        return self

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: Any) -> None:
        self._last = time.monotonic()
        self._save = self._last - self._began
