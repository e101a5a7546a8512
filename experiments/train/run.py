"""Library of the training commands: their options, the training itself, and its outputs.

A session trains until `--steps`, until its `--minutes` are over, or until SIGTERM or Ctrl-C. The
same command again resumes from RUN/checkpoints. The newest weights are packed in RUN/weights, from
which `--start` begins another run (`experiments.transfer`).
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import command, transfer
from qtts_jax import processes
from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.data import Dataset, TalkerBatchConfig
from qtts_jax.data.talker_layout import LayoutMix
from qtts_jax.errors import TrainingError
from qtts_jax.extras import import_extra
from qtts_jax.io.checkpoint import read_config
from qtts_jax.placement import fetch
from qtts_jax.training import checkpoints
from qtts_jax.training.hooks import averaged
from qtts_jax.training.mesh import MeshConfig
from qtts_jax.training.state import TrainState
from qtts_jax.training.task import Batches, Task
from qtts_jax.training.trainer import Hook, Trainer
from qtts_jax.training.trainer_config import TrainerConfig


class Stopwatch:
    """Seconds since the command began."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def log(self, event: str) -> None:
        """Print an event with its time."""
        print(f"{event} at {self.seconds:.1f} s", flush=True)


def default_dtype() -> str:
    """bfloat16 on an accelerator, float32 on a CPU, where bfloat16 is slow."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def add_arguments(
    parser: argparse.ArgumentParser, base: TrainerConfig, several: bool = True
) -> None:
    """The options that `parse`, `trainer_settings` and `train` read.

    Args:
        several: the command can run in several processes.
    """
    parser.add_argument("--out", type=Path, required=True, help="directory of the run")
    parser.add_argument(
        "--start",
        type=Path,
        help="RUN/weights of another run: begin with its weights and optimizer",
    )
    parser.add_argument(
        "--minutes", type=float, help="time limit; loading counts, compiling does not"
    )
    parser.add_argument(
        "--decay-minutes", type=float, help="last minutes, in which the rates fall to 0"
    )
    parser.add_argument("--steps", type=int, help="optimizer steps of the run (default: no limit)")
    parser.add_argument("--rate", type=float, default=1.0, help="factor of all learning rates")
    parser.add_argument(
        "--dtype", help="dtype of the computation (default: bfloat16, on a CPU float32)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of initialisation and batches")
    parser.add_argument("--threads", type=int, default=1, help="threads that prepare batches")
    parser.add_argument(
        "--steps-per-call", type=int, default=base.steps_per_call, help="steps per device call"
    )
    parser.add_argument(
        "--divergence-margin",
        type=float,
        help="rise of the loss that stops the run; inf for none (default: that of the recipe)",
    )
    parser.add_argument(
        "--save-every", type=int, default=base.save_every, help="steps between checkpoints"
    )
    parser.add_argument(
        "--log-every", type=int, default=base.log_every, help="steps between lines of metrics.jsonl"
    )
    parser.add_argument("--no-tensorboard", action="store_true", help="write metrics.jsonl only")
    parser.add_argument("--mesh", help="devices of the run, such as data=4,fsdp=2 (default: one)")
    if several:
        processes.add_options(parser)


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options of the command line; connects this process to others that they name.

    Raises:
        ConfigError: as `processes.start`.
        MissingExtraError: a package of training is not installed; known before a command speaks or
            encodes for minutes.
    """
    args = parser.parse_args()
    import_extra("grain", "train", "training batches")
    if not args.no_tensorboard:
        import_extra("tensorboardX", "train", "TensorBoard logs")
    if hasattr(args, "coordinator"):
        processes.start(args)  # before the first use of a device
    args.dtype = args.dtype or default_dtype()
    return args


def trainer_settings(args: argparse.Namespace, base: TrainerConfig, task: Task) -> TrainerConfig:
    """`base` with the options of the command line, and optimizers for the groups of the task."""
    rules = {
        name: dataclasses.replace(
            base.optimizers[name], learning_rate=args.rate * base.optimizers[name].learning_rate
        )
        for name in jax.eval_shape(task.init, jax.random.key(0))[0]
    }
    # Not a default of the option, since the stages of a command differ in theirs.
    margin = args.divergence_margin
    margin = base.divergence_margin if margin is None else margin
    return dataclasses.replace(
        base,
        steps=args.steps or base.steps,
        optimizers=rules,
        seed=args.seed,
        steps_per_call=args.steps_per_call,
        save_every=args.save_every,
        log_every=args.log_every,
        keep=1,
        divergence_margin=margin,
        tensorboard=not args.no_tensorboard,
        mesh=base.mesh if args.mesh is None else MeshConfig.parse(args.mesh),
    )


def has_held_out(dataset: Dataset, splits: Sequence[str], what: str) -> bool:
    """Whether a dataset has clips of these splits; prints that there is no `what` otherwise."""
    found = any(record.split in splits for record in dataset.records)
    if not found:
        print(f"no {what}: {dataset.directory} has no clips of the split {' or '.join(splits)}")
    return found


def talker_batch_config(
    args: argparse.Namespace,
    tokenizer: Path,
    split: str,
    mix: LayoutMix,
    rare_speaker_repeats: int = 1,
) -> TalkerBatchConfig:
    """How the batches of a split are made, from the options of a command and its tokenizer.

    Held-out batches have every clip once, in any order of lengths.
    """
    speech = Tokenizer12HzConfig.from_hf(read_config(tokenizer)).encoder
    training = split == "train"
    return TalkerBatchConfig(
        mix=mix,
        rare_speaker_repeats=rare_speaker_repeats if training else 1,
        positions=args.positions,
        batch_positions=args.batch_positions,
        frame_rate=speech.sample_rate / speech.samples_per_frame,
        batches_per_bucket_run=args.steps_per_call if training else 1,
        seed=args.seed,
    )


def by_one_process(write: Callable[..., None]) -> Callable[..., None]:
    """`write`, called by process 0 alone where several train together.

    The weights (averaged ones, if there are) and extras are gathered in the host memory of each,
    one array at a time over the devices.

    Args:
        write: (state, *further arguments) -> None; reads weights by `averaged`, and extras.
    """

    def run(state: TrainState, *further: Any) -> None:
        if processes.together():
            params, extras = jax.tree.map(fetch, (averaged(state), state.extras))
            if not processes.writes():
                return
            state = state._replace(params=params, extras=extras, average=None, optimizer={})
        write(state, *further)

    return run


def _unpacked(source: Path, directory: Path) -> Path:
    """The packed weights of another run as a checkpoint in `directory`."""
    if processes.writes():
        shutil.rmtree(directory, ignore_errors=True)
        transfer.unpack(source, directory)
    return checkpoints.checkpoints(directory)[-1]


def train(
    args: argparse.Namespace,
    base: TrainerConfig,
    task: Task,
    batches: Batches,
    hooks: Sequence[Hook],
    stopwatch: Stopwatch,
    write: Callable[[Any], None],
) -> None:
    """Train until the session ends, then write the model and the packed weights.

    Args:
        write: saves the model of a state; called also when training fails, with the last good
            checkpoint. Of several processes only process 0 calls it (`by_one_process`).

    Raises:
        TrainingError: training cannot go on (the model of the last good checkpoint is written
            before), or no step was made.
        SystemExit: a signal stopped training; status 128 plus its number. Only the checkpoint is
            written then, since the sender of the signal may not wait longer.
    """
    start = None
    if args.start is not None:
        start = processes.in_turn(lambda: _unpacked(args.start, args.out / "start"))
    trainer = Trainer(
        task, batches, trainer_settings(args, base, task), args.out, list(hooks), start
    )
    stopwatch.log("training begins")
    stopped = None
    try:
        outcome = trainer.run(
            None if args.minutes is None else 60 * args.minutes - stopwatch.seconds,
            None if args.decay_minutes is None else 60 * args.decay_minutes,
        )
        stopwatch.log(str(outcome))
        if outcome.signal is not None:
            raise SystemExit(128 + signal.Signals[outcome.signal].value)
    except TrainingError as error:
        if not checkpoints.checkpoints(trainer.checkpoints):
            raise
        stopped = error
    by_one_process(write)(trainer.newest())
    weights = trainer.save_weights(args.out / "newest")
    if processes.writes():
        shutil.rmtree(args.out / "weights", ignore_errors=True)
        transfer.pack(weights, args.out / "weights")
    stopwatch.log("written")
    if stopped is not None:
        raise stopped


if __name__ == "__main__":
    raise SystemExit(
        command.exit_status_of_library(
            __file__,
            "experiments.train.tokenizer",
            "experiments.train.tokenizer_25hz",
            "experiments.train.talker",
            "experiments.train.new_speaker",
        )
    )
