"""Train a 12 Hz tokenizer from recordings, in two stages.

    python -m experiments.train.tokenizer --data DATASET --teacher WHISPER --out runs/codes \
        --stage codes --minutes 5 --decay-minutes 1
    python -m experiments.train.tokenizer --data DATASET --model runs/codes/model \
        --out runs/decoder --stage decoder --minutes 9 --decay-minutes 1.5

Stage `codes` trains encoder and codebooks with a head that predicts spectra from the codes and with
a semantic teacher; stage `decoder` trains the decoder of these codes against discriminators;
`joint` trains all at once. The same command again continues the run. RUN/model is the tokenizer
(averaged weights, bfloat16, for `SpeechTokenizer.from_pretrained`) and the `--model` of the next
stage; RUN/weights (`experiments.transfer`) has discriminators and heads too, for `--start` of
another run of the same stage. metrics.jsonl has the curves, RUN/checkpoints whole checkpoints.

DATASET is made by `python -m qtts_jax.data prepare`, WHISPER by `python -m qtts_jax.data teacher`.
Without `--model` the sizes are those of the nano tokenizer; `--config` takes any `config.json` of a
12 Hz tokenizer."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from experiments import command
from experiments.nano.tokenizer_recipe import (
    NANO_TOKENIZER_FRAMES,
    NANO_TOKENIZER_ROWS,
    NANO_TOKENIZER_TRAINER,
    NANO_TOKENIZER_TRAINING,
    nano_tokenizer,
)
from experiments.train.run import Stopwatch, add_arguments, has_held_out, parse, train
from qtts_jax import data
from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params, abstract
from qtts_jax.io.checkpoint import load_params, read_config
from qtts_jax.io.config_file import read_json
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.training.export import save_tokenizer
from qtts_jax.training.hooks import averaged
from qtts_jax.training.state import TrainState
from qtts_jax.training.tokenizer.config import LossWeights, TokenizerTraining
from qtts_jax.training.tokenizer.samples import reconstruction_samples
from qtts_jax.training.tokenizer.task import TokenizerTask
from qtts_jax.training.trainer import Hook

SAMPLE_SECONDS = 6.4


def training_settings(args: argparse.Namespace) -> TokenizerTraining:
    """The nano recipe of the stage with what the command line changes."""
    settings = NANO_TOKENIZER_TRAINING[args.stage]
    if args.teacher is None:
        settings = dataclasses.replace(settings, teacher_width=None)
    if args.discriminator_start is not None:
        settings = dataclasses.replace(settings, discriminator_start=args.discriminator_start)
    if args.generator_start is not None:
        settings = dataclasses.replace(settings, generator_start=args.generator_start)
    if args.decoded_frames is not None:
        settings = dataclasses.replace(settings, decoded_frames=args.decoded_frames)
    if args.no_discriminator:
        settings = dataclasses.replace(settings, discriminator=None)
    weights = dataclasses.replace(settings.weights, **dict(args.weights))
    return dataclasses.replace(settings, weights=weights)


def weight(text: str) -> tuple[str, float]:
    """NAME=VALUE of a field of `LossWeights`."""
    name, _, value = text.partition("=")
    if name not in {field.name for field in dataclasses.fields(LossWeights)}:
        raise argparse.ArgumentTypeError(f"{text!r} names no loss of LossWeights")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like mel=3") from None


def read_tokenizer(model: Path) -> tuple[Tokenizer12HzConfig, Params]:
    """The configuration and the parameters of a checkpoint."""
    config = Tokenizer12HzConfig.from_hf(read_config(model))
    return config, load_params(model, abstract(Tokenizer12Hz, config)[1])


def with_decoder(config: Tokenizer12HzConfig, params: Params, model: Path) -> Params:
    """Parameters whose decoder has the layers of another checkpoint, but its own codebooks.

    The layers stay useful for codes other than those that they were trained on.

    Raises:
        ConfigError: the decoders have other sizes.
    """
    other, given = read_tokenizer(model)
    if other.decoder != config.decoder:
        raise ConfigError(
            f"the decoder of {model} has other sizes than that of --model; leave --decoder out."
        )
    return params | {"decoder": given["decoder"] | {"quantizer": params["decoder"]["quantizer"]}}


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
    """Train for one session and write the model."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--data", type=Path, required=True, help="prepared dataset")
    parser.add_argument(
        "--teacher", type=Path, help="converted Whisper encoder (default: no teacher)"
    )
    parser.add_argument(
        "--stage", choices=sorted(NANO_TOKENIZER_TRAINING), default="joint", help="parts to train"
    )
    parser.add_argument("--model", type=Path, help="tokenizer checkpoint to start from")
    parser.add_argument(
        "--decoder", type=Path, help="tokenizer whose decoder replaces that of --model"
    )
    parser.add_argument(
        "--config", type=Path, help="config.json of a 12 Hz tokenizer (default: nano)"
    )
    parser.add_argument("--rows", type=int, help="batch size (default: that of the stage)")
    parser.add_argument("--frames", type=int, default=NANO_TOKENIZER_FRAMES, help="frames of a row")
    parser.add_argument(
        "--discriminator-start", type=int, help="step that starts them (default: recipe)"
    )
    parser.add_argument(
        "--generator-start",
        type=int,
        help="step of their first gradients to the decoder (default: recipe)",
    )
    parser.add_argument(
        "--decoded-frames", type=int, help="frames of a row to decode (default: recipe)"
    )
    parser.add_argument("--no-discriminator", action="store_true", help="spectral losses only")
    parser.add_argument(
        "--weights",
        type=weight,
        nargs="+",
        default=[],
        metavar="LOSS=X",
        help="fields of LossWeights, such as mel=3",
    )
    parser.add_argument(
        "--samples", type=int, default=4, help="held-out clips that are decoded and logged"
    )
    parser.add_argument("--sample-every", type=int, default=5000, help="steps between them")
    add_arguments(parser, NANO_TOKENIZER_TRAINER["joint"])
    args = parse(parser)
    if args.decoder is not None and args.model is None:
        parser.error("--decoder needs --model, whose codes it decodes")
    session(args)


def session(args: argparse.Namespace) -> None:
    """One training session.

    Raises:
        QTTSError: the dataset, the teacher or a tokenizer cannot be used, or training cannot go on.
    """
    stopwatch = Stopwatch()
    config, start = nano_tokenizer(), None
    if args.model is not None:
        config, start = read_tokenizer(args.model)
        if args.decoder is not None:
            start = with_decoder(config, start, args.decoder)
    elif args.config is not None:
        config = Tokenizer12HzConfig.from_hf(read_json(args.config))
    task = TokenizerTask(config, training_settings(args), dtype=args.dtype, start=start)
    dataset = data.Dataset(args.data)
    waves = data.load_waves(dataset, dataset.select("train"))
    stopwatch.log(f"{len(waves)} clips, {waves.seconds / 3600:.2f} h, loaded")
    features = None
    if task.training.learns_codes and args.teacher is not None:
        features = data.teacher_features(waves, args.teacher)
        stopwatch.log("teacher done")
    batches = data.TokenizerBatches(
        waves,
        rows=args.rows or NANO_TOKENIZER_ROWS[args.stage],
        frames=args.frames,
        samples_per_frame=config.samples_per_frame,
        seed=args.seed,
        teacher=features,
        threads=args.threads,
    )
    hooks = []
    if args.samples and has_held_out(dataset, ("validation", "test"), "samples to log"):
        frames = int(SAMPLE_SECONDS * config.input_sample_rate) // config.samples_per_frame
        audio = sample_audio(dataset, args.samples, frames * config.samples_per_frame)
        hooks.append(Hook(args.sample_every, reconstruction_samples(task, audio)))

    def write(state: TrainState) -> None:
        params = task.tokenizer_params(averaged(state), state.extras)
        save_tokenizer(args.out / "model", config, params)

    try:
        train(args, NANO_TOKENIZER_TRAINER[args.stage], task, batches, hooks, stopwatch, write)
    finally:
        batches.close()


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
