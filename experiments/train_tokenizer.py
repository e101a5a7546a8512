"""Train a 12 Hz tokenizer from recordings, in pieces that go on where the last one ended.

    python experiments/train_tokenizer.py --data DATASET --teacher WHISPER --out runs/tokenizer \
        --minutes 9 --decay-minutes 1.5

Run it again for the next piece. RUN/model is the tokenizer so far (averaged weights, bfloat16, for
`SpeechTokenizer.from_dir`), RUN/weights what `--start` of another run begins with, in files of at
most 16 MiB, metrics.jsonl the curves. Whole checkpoints, for `Trainer`, stay in RUN/checkpoints.

DATASET is made by `qtts_jax.training.data.prepare`, WHISPER by `convert_whisper`. The default is
the nano tokenizer; `--config` takes any `config.json` of a 12 Hz tokenizer.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from pathlib import Path

import jax
import numpy as np

from qtts_jax.config_12hz import Tokenizer12HzConfig
from qtts_jax.errors import TrainingError
from qtts_jax.training import checkpoints, data
from qtts_jax.training.export import save_tokenizer
from qtts_jax.training.hooks import averaged, reconstruction_samples
from qtts_jax.training.nano import (
    NANO_TOKENIZER_FRAMES,
    NANO_TOKENIZER_ROWS,
    NANO_TOKENIZER_TRAINER,
    NANO_TOKENIZER_TRAINING,
    nano_tokenizer,
)
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.tokenizer_config import TokenizerTraining
from qtts_jax.training.tokenizer_task import TokenizerTask
from qtts_jax.training.trainer import Hook, Trainer, TrainerConfig

SAMPLE_SECONDS = 6.4


def training_settings(args: argparse.Namespace) -> TokenizerTraining:
    """The nano recipe with what the command line changes."""
    settings = NANO_TOKENIZER_TRAINING
    if args.teacher is None:
        settings = dataclasses.replace(settings, teacher_width=None)
    if args.discriminator_start is not None:
        settings = dataclasses.replace(settings, discriminator_start=args.discriminator_start)
    if args.generator_start is not None:
        settings = dataclasses.replace(settings, generator_start=args.generator_start)
    if args.judged_frames is not None:
        settings = dataclasses.replace(settings, discriminator_frames=args.judged_frames)
    if args.no_discriminator:
        settings = dataclasses.replace(settings, discriminator=None)
    return settings


def trainer_settings(args: argparse.Namespace, task: TokenizerTask) -> TrainerConfig:
    """The nano trainer with what the command line changes."""

    def changed(rule: OptimizerConfig) -> OptimizerConfig:
        return dataclasses.replace(rule, learning_rate=args.rate * rule.learning_rate)

    rules = NANO_TOKENIZER_TRAINER.optimizers
    groups = jax.eval_shape(task.init, jax.random.key(0))[0]
    return dataclasses.replace(
        NANO_TOKENIZER_TRAINER,
        steps=args.steps or NANO_TOKENIZER_TRAINER.steps,
        optimizers={name: changed(rules[name]) for name in groups},
        seed=args.seed,
        save_every=args.save_every,
        log_every=args.log_every,
        keep=1,
        tensorboard=not args.no_tensorboard,
    )


def sample_audio(dataset: data.Dataset, count: int, samples: int) -> np.ndarray:
    """The beginnings of held-out clips, recorded ones first: [count, samples]."""
    held = dataset.select(where=lambda r: r.split != "train")
    held.sort(key=lambda i: bool(dataset.records[i].extra.get("synthetic")))
    out = np.zeros((min(count, len(held)), samples), np.float32)
    for row, index in zip(out, held, strict=False):
        wave = dataset.wave(index)[:samples]
        row[: len(wave)] = wave
    return out


def main() -> None:
    """Train one piece and write what it gave."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared dataset")
    parser.add_argument("--teacher", type=Path, help="converted Whisper; none: no teacher")
    parser.add_argument("--out", type=Path, required=True, help="directory of the run")
    parser.add_argument("--start", type=Path, help="packed weights of another run")
    parser.add_argument("--config", type=Path, help="config.json of a 12 Hz tokenizer")
    parser.add_argument("--minutes", type=float, help="length of this piece, loading included")
    parser.add_argument("--decay-minutes", type=float, help="bring the rates to 0 at its end")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rows", type=int, default=NANO_TOKENIZER_ROWS)
    parser.add_argument("--frames", type=int, default=NANO_TOKENIZER_FRAMES)
    parser.add_argument("--discriminator-start", type=int)
    parser.add_argument("--generator-start", type=int)
    parser.add_argument("--judged-frames", type=int)
    parser.add_argument("--no-discriminator", action="store_true")
    parser.add_argument("--rate", type=float, default=1.0, help="factor of all learning rates")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="that make batches")
    parser.add_argument("--save-every", type=int, default=NANO_TOKENIZER_TRAINER.save_every)
    parser.add_argument("--log-every", type=int, default=NANO_TOKENIZER_TRAINER.log_every)
    parser.add_argument("--samples", type=int, default=4, help="held-out clips to listen to")
    parser.add_argument("--sample-every", type=int, default=5000, help="steps")
    parser.add_argument("--no-tensorboard", action="store_true")
    args = parser.parse_args()

    config = nano_tokenizer()
    if args.config is not None:
        config = Tokenizer12HzConfig.from_hf(json.loads(args.config.read_text()))
    task = TokenizerTask(config, training_settings(args), dtype=args.dtype)
    dataset = data.Dataset(args.data)
    waves = data.load_waves(dataset, dataset.select("train"))
    print(f"{len(waves)} clips, {waves.seconds / 3600:.2f} h, loaded at {_since(began)}")
    features = None
    if args.teacher is not None:
        features = data.teacher_features(waves, args.teacher)
        print(f"teacher done at {_since(began)}")
    batches = data.TokenizerBatches(
        waves,
        rows=args.rows,
        frames=args.frames,
        samples_per_frame=config.samples_per_frame,
        seed=args.seed,
        teacher=features,
        threads=args.threads,
    )
    hooks = []
    if args.samples:
        frames = int(SAMPLE_SECONDS * config.input_sample_rate) // config.samples_per_frame
        audio = sample_audio(dataset, args.samples, frames * config.samples_per_frame)
        hooks.append(Hook(args.sample_every, reconstruction_samples(task, audio)))
    start = None
    if args.start is not None:
        shutil.rmtree(args.out / "start", ignore_errors=True)
        start = checkpoints.unpack(args.start, args.out / "start")
    trainer = Trainer(task, batches, trainer_settings(args, task), args.out, hooks, start)
    print(f"training begins at {_since(began)}")
    stopped = None
    try:
        outcome = trainer.run(
            None if args.minutes is None else 60 * args.minutes - (time.monotonic() - began),
            None if args.decay_minutes is None else 60 * args.decay_minutes,
        )
        print(f"{outcome} at {_since(began)}")
    except TrainingError as error:
        # What the last good checkpoint holds is written all the same.
        stopped = error
    batches.close()
    state = trainer.newest()
    params = task.tokenizer_params(averaged(state), state.extras)
    save_tokenizer(args.out / "model", config, params)
    weights = trainer.save_weights(args.out / "newest")
    shutil.rmtree(args.out / "weights", ignore_errors=True)
    checkpoints.pack(weights, args.out / "weights")
    print(f"written at {_since(began)}")
    if stopped is not None:
        raise stopped


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"


if __name__ == "__main__":
    main()
