"""The training loop: resume, step, check for divergence, log, save and stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from signal import Signals
from typing import Any, NamedTuple

import jax
import numpy as np

from qtts_jax import compilation_cache, processes
from qtts_jax.errors import CheckpointError, ConfigError, TrainingError
from qtts_jax.io.atomic_directory import new_directory
from qtts_jax.training import checkpoints
from qtts_jax.training.beginning import beginning
from qtts_jax.training.decisions import Decisions
from qtts_jax.training.divergence import DivergenceDetector
from qtts_jax.training.log import RunLog
from qtts_jax.training.mesh import TrainingMesh
from qtts_jax.training.metric_window import MetricWindow
from qtts_jax.training.programs import TrainingPrograms
from qtts_jax.training.progress import ProgressBar, progress_bar
from qtts_jax.training.state import TrainState
from qtts_jax.training.stop_signals import StopSignals
from qtts_jax.training.task import Batches, PolicyBatches, Task
from qtts_jax.training.time_budget import TimeBudget
from qtts_jax.training.trainer_config import TrainerConfig

CHECKPOINTS = "checkpoints"


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

    Attributes:
        mesh: the devices.
        programs: what they compute, with the shapes and shardings of the state.

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
        self.programs = TrainingPrograms(task, self.mesh, config)

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
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self.programs.shapes))
        budget = TimeBudget(max_seconds, decay_seconds, size)
        checkpoints.sweep(self.checkpoints)
        shown = self.config.progress and processes.writes()
        detector = DivergenceDetector(self.config.divergence_margin)
        with StopSignals() as signals, progress_bar(budget, shown) as progress:
            fresh = not checkpoints.checkpoints(self.checkpoints)
            with progress.compiling() if fresh else nullcontext():
                state, saved, window = self._resume(detector)
            first = int(state.step)
            if 0 < int(state.ending[1]) <= first:
                state = self.programs.ending(state, 0, 0)
            progress.begin(first)
            try:
                with RunLog(self.directory, first, tensorboard=self.config.tensorboard) as log:
                    means = MetricWindow(detector, log, self.config.log_every, first, window)
                    try:
                        outcome = self._loop(state, saved, means, log, budget, signals, progress)
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
        return checkpoints.restore(found[-1], self.programs.shapes, self.programs.shardings)[0]

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
        progress: ProgressBar,
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
                state = self.programs.ending(state, step, end)
            shape = tuple(sorted((name, x.shape) for name, x in batches.items()))
            if shape in compiled:
                state, metrics = self.programs.steps(state, batches)
            else:
                with progress.compiling():
                    state, metrics = self.programs.steps(state, batches)
                compiled.add(shape)
            done, step = count, step + count
            # The device works while the host makes the next batches and looks at the metrics of
            # the call before.
            position = self.batches.state()
            batches, count = self._take(min(end, c.steps) - step, state)
            means.add(step, metrics)
            budget.stepped(done)
            progress.show(step, min(end, c.steps), means.loss)
            due = [hook for hook in self.hooks if step % hook.every < done]
            if due:
                means.settle()
                for hook in due:
                    if hook in compiled:
                        hook.run(state, log)
                    else:
                        with progress.compiling():
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

    def _resume(self, detector: DivergenceDetector) -> tuple[TrainState, int, dict[str, Any]]:
        """The state to continue from, the step of its checkpoint (-1 for none), the open window."""
        state, run = beginning(self.programs, self.checkpoints, self.start)
        if run is None:
            return state, -1, {}
        self.batches.restore(run["data"])
        detector.restore(run["watch"])
        return state, int(state.step), run.get("window", {})

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
        if not self.programs.is_finite(state):
            raise TrainingError(f"the state after step {int(state.step)} is not finite")
        with budget.saving():
            run = {"step": int(state.step), "data": position, **means.state()}
            checkpoints.save(self.checkpoints, state, run, self.config.keep)


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
