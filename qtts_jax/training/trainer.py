"""The training loop: resume, step, check for divergence, log, save and stop."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from qtts_jax import compilation_cache, processes
from qtts_jax.errors import CheckpointError, ConfigError, TrainingError
from qtts_jax.functional import Params
from qtts_jax.io.atomic_directory import new_directory
from qtts_jax.training import checkpoints
from qtts_jax.training.decisions import Decisions
from qtts_jax.training.divergence import DivergenceDetector
from qtts_jax.training.log import RunLog
from qtts_jax.training.mesh import MeshConfig, TrainingMesh
from qtts_jax.training.metric_window import MetricWindow
from qtts_jax.training.optimizer import OptimizerConfig, optimizer
from qtts_jax.training.state import TrainState, first_state, state_shardings
from qtts_jax.training.step import make_step
from qtts_jax.training.stop_signals import StopSignals
from qtts_jax.training.task import Batches, PolicyBatches, Task
from qtts_jax.training.time_budget import TimeBudget

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrainerConfig:
    """Settings of a run that do not depend on the model.

    Attributes:
        steps: updates of the whole run, over all its sessions (calls of `Trainer.run`).
        optimizers: one per parameter group of the task, by name.
        seed: of the parameters and of every random choice in training.
        accumulate: microbatches per step.
        steps_per_call: steps per call of the device (`lax.scan`), on batches of one shape. A GPU
            does the steps of a small model faster than a host can dispatch them one by one.
            Checkpoints and hooks follow the call that contains their step.
        average_decay: decay of the moving average of the weights; None for no average.
        mesh: devices and how parameters are split over them.
        log_every: steps per line of the log, which holds the means over them. A session that ends
            between two lines adds a partial one; when the run goes on, the full line replaces it.
        save_every: steps between checkpoints; the end of a session is saved too.
        keep: number of newest checkpoints kept.
        divergence_margin: see `DivergenceDetector`; None to stop only at values that are not
            finite.
        tensorboard: also write TensorBoard events.
        progress: show a bar with steps per second and the time left.
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
    """A function called every `every` steps (audio samples, a validation loss)."""

    every: int
    run: Callable[[TrainState, RunLog], None]


class Outcome(NamedTuple):
    """How a session of a run ended.

    Attributes:
        step: steps done.
        finished: all steps are done, the final decay is over, or the data has ended; False when
            time was up or a signal came.
        checkpoint: the newest one.
        signal: name of the signal that stopped it ("SIGTERM", "SIGINT"), or None.
    """

    step: int
    finished: bool
    checkpoint: Path
    signal: str | None = None


class Trainer:
    """Trains a task and keeps its checkpoints and logs in a directory, from which it resumes.

    One process drives all devices of the mesh, or several that were started together
    (`processes.py`), each the devices of its host: they have the same arguments and data, and a
    directory that all of them see. Process 0 writes logs.

    Args:
        task: model and losses.
        batches: the data; its position is part of every checkpoint.
        config: settings of the run.
        directory: of checkpoints and logs; a later trainer on it goes on from the newest.
        hooks: functions called between steps.
        start: weights that another run saved with `save_weights`, used where this run has no
            checkpoint of its own; optimizer state and steps begin anew.

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
        compilation_cache.enable()
        self.task, self.batches, self.config, self.hooks = task, batches, config, hooks
        self.directory, self.start = Path(directory), start
        self.mesh = TrainingMesh(config.mesh)
        self._optimizers = {name: optimizer(c) for name, c in config.optimizers.items()}
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
        self._shapes = jax.eval_shape(self._new)
        self.shardings = state_shardings(self.mesh, task, self._optimizers, self._shapes)
        step = self.mesh.traced(
            make_step(
                task, config.optimizers, self._optimizers, config.accumulate, config.average_decay
            )
        )
        # Metrics are replicated; the state keeps its shardings.
        self._steps = jax.jit(
            lambda state, batches: jax.lax.scan(step, state, batches),
            donate_argnums=0,
            out_shardings=(self.shardings, self.mesh.replicated),
        )
        self._finite = jax.jit(_all_finite)

    @property
    def checkpoints(self) -> Path:
        """The directory of the checkpoints."""
        return self.directory / CHECKPOINTS

    def run(self, max_seconds: float | None = None, decay_seconds: float | None = None) -> Outcome:
        """Train from the newest checkpoint, or from the start, to the last step.

        SIGTERM and Ctrl-C stop the run after the call under way, with a checkpoint whose path is
        printed; a second signal ends the process at once (`StopSignals`).

        Args:
            max_seconds: stop, with a checkpoint, before this time is up; compiling does not count.
                The measured times of a call and of a save are kept free for the next of them, and
                before the first save the time that its bytes take on a slow disk.
            decay_seconds: in the last seconds, before the save, bring all learning rates down to 0
                and end the run (`optimizer.final_factor`). A run that is continued after its decay
                goes on at the full rates.

        Raises:
            TrainingError: values are not finite, or the loss diverges; the last good checkpoint
                stays the newest. Also when the run ends before its first step.
            CheckpointError: the newest checkpoint is damaged or of another model, or the disk is
                full.
        """
        if decay_seconds is not None and (max_seconds is None or decay_seconds >= max_seconds):
            raise ConfigError(
                f"a decay over the last {decay_seconds:g} s needs a longer time limit than "
                f"{max_seconds}; give max_seconds too."
            )
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self._shapes))
        budget = TimeBudget(max_seconds, decay_seconds, size)
        checkpoints.sweep(self.checkpoints)
        shown = self.config.progress and processes.writes()
        detector = DivergenceDetector(self.config.divergence_margin)
        with (
            StopSignals() as signals,
            tqdm(unit="step", disable=not shown, smoothing=0.05) as bar,
        ):
            fresh = not checkpoints.checkpoints(self.checkpoints)
            with _compiling(budget, bar) if fresh else nullcontext():
                state, saved, window = self._resume(detector)
            first = int(state.step)
            if 0 < int(state.ending[1]) <= first:
                state = self._end_at(state, 0, 0)
            bar.initial = bar.n = first
            try:
                with RunLog(self.directory, first, tensorboard=self.config.tensorboard) as log:
                    means = MetricWindow(detector, log, self.config.log_every, first, window)
                    try:
                        outcome = self._loop(state, saved, means, log, budget, signals, bar)
                    finally:
                        means.flush()
            except _NoStep as error:
                raise TrainingError(str(error)) from None
            except TrainingError as error:
                kept = checkpoints.checkpoints(self.checkpoints)
                last = (
                    f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was made"
                )
                raise TrainingError(
                    f"training stopped: {str(error).rstrip('.')}; {last}; lower the learning rate "
                    "or fix the data, then run again."
                ) from error
        if outcome.signal is not None and processes.writes():
            print(
                f"{outcome.signal}: stopped after step {outcome.step}; saved "
                f"{outcome.checkpoint}; the same command goes on from there",
                flush=True,
            )
        return outcome

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
            directory: a folder for them alone; its content is replaced.

        Returns:
            the checkpoint `directory/step_NUMBER`.

        Raises:
            CheckpointError: there is no checkpoint, or the disk is full.
        """
        state = self.newest()
        params = state.params if state.average is None else state.average
        weights = state._replace(params=params, optimizer={}, average=None)
        run = {"step": int(state.step), "data": None, "watch": None}
        # Atomic, since the folder may hold weights of another run, of any step.
        with new_directory(
            directory, overwrite=True, markers=("step_*",), together=True
        ) as partial:
            name = checkpoints.save(partial, weights, run, keep=1).name
        return directory / name

    def _loop(
        self,
        state: TrainState,
        saved: int,
        means: MetricWindow,
        log: RunLog,
        budget: TimeBudget,
        signals: StopSignals,
        bar: tqdm[Any],
    ) -> Outcome:
        c, first = self.config, int(state.step)
        position = self.batches.state()
        step, end = first, int(state.ending[1]) or c.steps
        compiled: set[Any] = set()
        decisions, signal = Decisions(self.mesh.mesh), 0
        batches, count = self._take(min(end, c.steps) - first, state)
        while count and step < min(end, c.steps):
            up, signal, decays, left = self._decide(decisions, budget, signals, count)
            if up or signal:
                break
            if end == c.steps and decays:
                # Whole calls, since a shorter one would be compiled anew.
                end = step + count * max(left // count, 1)
                state = self._end_at(state, step, end)
            shape = tuple(sorted((name, x.shape) for name, x in batches.items()))
            if shape in compiled:
                state, metrics = self._steps(state, batches)
            else:
                with _compiling(budget, bar):
                    state, metrics = self._steps(state, batches)
                compiled.add(shape)
            done, step = count, step + count
            # The device works while the host makes the next batches and looks at the metrics of
            # the call before.
            position = self.batches.state()
            batches, count = self._take(min(end, c.steps) - step, state)
            means.add(step, metrics)
            budget.stepped(done)
            self._show(bar, step, min(end, c.steps), means, budget)
            due = [hook for hook in self.hooks if step % hook.every < done]
            if due:
                means.settle()
                for hook in due:
                    if hook in compiled:
                        hook.run(state, log)
                    else:
                        with _compiling(budget, bar):
                            hook.run(state, log)
                        compiled.add(hook)
            if step % c.save_every < done:
                means.settle()
                self._save(state, position, means, budget)
                saved = step
        means.settle()
        if not step:
            raise _NoStep(_why_no_step(_signal_name(signal), bool(count)))
        if saved != step:
            self._save(state, position, means, budget)
        finished = step >= min(end, c.steps) or not count
        newest = checkpoints.checkpoints(self.checkpoints)[-1]
        return Outcome(step, finished, newest, None if finished else _signal_name(signal))

    def _decide(
        self, decisions: Decisions, budget: TimeBudget, signals: StopSignals, count: int
    ) -> tuple[bool, int, bool, int]:
        """Whether time is up, a signal's number or 0, whether the decay is due, and steps left."""
        name = signals.received
        up, signal, decays, less = decisions(
            (
                budget.is_up(2 if decisions.late else 1),
                0 if name is None else Signals[name].value,
                budget.decays(),
                -(budget.steps_left() or count),
            )
        )
        return bool(up), int(signal), bool(decays), -int(less)

    def _show(
        self, bar: tqdm[Any], step: int, end: int, means: MetricWindow, budget: TimeBudget
    ) -> None:
        """Update the progress bar, whose end is the last step or what fits into the time."""
        if bar.disable:
            return
        left = budget.steps_left()
        if left is not None:
            bar.total = min(end, step + left)
        elif not budget.limited:
            bar.total = end
        if means.loss is not None:
            bar.set_postfix(loss=f"{means.loss:.4g}", refresh=False)
        bar.update(step - bar.n)

    def _new(self, start: Params | None = None) -> TrainState:
        """The state before step 0; `start` replaces the task's own start parameters."""
        params, extras = self.task.init(jax.random.fold_in(self._key, 0), start)
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
        if self.mesh.mesh.size == 1:
            return jax.device_put(self._new(), self.shardings, may_alias=False)
        # One program for all devices: a split parameter is never whole on one of them.
        start = self.task.start
        start = jax.device_put(start, jax.tree.map(self.mesh.fsdp, start), may_alias=False)
        return jax.jit(self._new, out_shardings=self.shardings)(start)

    def _resume(self, detector: DivergenceDetector) -> tuple[TrainState, int, dict[str, Any]]:
        """The state to continue from, the step of its checkpoint (-1 for none), the open window."""
        found = checkpoints.checkpoints(self.checkpoints)
        self._check_shared(found)
        if not found:
            state = self._first() if self.start is None else self._started(self.start)
            return self._counted(state), -1, {}
        state, run = checkpoints.restore(found[-1], self._shapes, self.shardings)
        self.batches.restore(run["data"])
        detector.restore(run["watch"])
        return self._counted(state), int(state.step), run.get("window", {})

    def _check_shared(self, found: Sequence[Path]) -> None:
        """Check that this process sees the checkpoints that process 0 sees."""
        newest = zlib.crc32(found[-1].name.encode()) if found else 0
        if newest != processes.agreed(newest):
            raise CheckpointError(
                f"process {processes.number()} and process 0 see different checkpoints in "
                f"{self.checkpoints}; name a directory on a file system that all hosts share."
            )

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
        """The state with the task's counters set to the steps of this run (`Task.at_step`)."""
        extras = self.task.at_step(state.extras, int(state.step))
        return state._replace(extras=jax.device_put(extras, self.shardings.extras))

    def _end_at(self, state: TrainState, first: int, last: int) -> TrainState:
        ending = jax.device_put(np.asarray([first, last], np.int32), self.mesh.replicated)
        return state._replace(ending=ending)

    def _take(self, most: int, state: TrainState) -> tuple[dict[str, jax.Array], int]:
        """The batches of the next call, [steps, rows, ...] on the devices, and their number."""
        taken: list[dict[str, np.ndarray]] = []
        if most > 0 and isinstance(self.batches, PolicyBatches):
            self.batches.follow(state.params, state.extras)
        for _ in range(min(self.config.steps_per_call, most)):
            try:
                taken.append(next(self.batches))
            except StopIteration:
                break
        if not taken:
            return {}, 0
        return self.mesh.put(taken, self.config.accumulate), len(taken)

    def _save(
        self, state: TrainState, position: dict[str, Any], means: MetricWindow, budget: TimeBudget
    ) -> None:
        if not bool(self._finite(state)):
            raise TrainingError(f"the state after step {int(state.step)} is not finite")
        with budget.saving():
            run = {"step": int(state.step), "data": position, **means.state()}
            checkpoints.save(self.checkpoints, state, run, self.config.keep)


def _all_finite(state: TrainState) -> jax.Array:
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in floats]))


class _NoStep(TrainingError):
    """The run ended before its first step."""


def _signal_name(number: int) -> str | None:
    return Signals(number).name if number else None


def _why_no_step(signal: str | None, has_data: bool) -> str:
    if signal is not None:
        return f"{signal} came before the first step, so nothing was saved; run again."
    if not has_data:
        return "the data has no batch, so no step was made; give more clips or smaller batches."
    return (
        "the time was up before the first step, so nothing was saved; allow more time, which "
        "loading the data counts in."
    )


@contextmanager
def _compiling(budget: TimeBudget, bar: tqdm[Any]) -> Iterator[None]:
    """Show "compiling" on the progress bar; the time inside does not count in the budget."""
    bar.set_description("compiling")
    with budget.compiling():
        yield
    bar.set_description(None)
