"""Train a 25 Hz tokenizer from recordings with texts, in four stages.

    python -m experiments.train.tokenizer_25hz encoder --data DATASET --out runs/encoder \
        --preset tiny --minutes 5
    python -m experiments.train.tokenizer_25hz mel --data DATASET --preset tiny --minutes 5 \
        --start runs/encoder/weights --out runs/mel
    python -m experiments.train.tokenizer_25hz flow --data DATASET --preset tiny --minutes 9 \
        --model runs/mel/model --out runs/flow
    python -m experiments.train.tokenizer_25hz vocoder --data DATASET --preset tiny --minutes 9 \
        --model runs/flow/model --out runs/vocoder

`encoder` trains encoder and codebook to recognise speech, `mel` goes on with a mel decoder beside
it; `flow` trains the flow-matching decoder on the codes of --model, `vocoder` the vocoder on mel
frames of the recordings. RUN/model is a whole tokenizer (averaged weights, bfloat16, for
`SpeechTokenizer.from_pretrained`): the parts of --model, random ones without, and the part that the
stage trains. So the last stage writes the finished one. The same command again continues the run;
RUN/weights has the heads too, for --start of the next run of an encoder stage.

With --whisper WHISPER (made by `python -m qtts_jax.data teacher`) the encoder begins as that of
Whisper instead of at random; its sizes must be equal: --preset whisper-base for Whisper base.

DATASET is made by `python -m qtts_jax.data prepare` at the output rate of the tokenizer (24 kHz).
Voices of its speakers are written with the flow: the checkpoint decodes with them by name, with
"default" else. Without --xvectors all x-vectors are zeros, and the reference mel alone carries the
voice."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import jax

from experiments import command
from experiments.train.recipe_25hz import PRESETS, STAGES, TRAINERS
from experiments.train.run import Stopwatch, add_arguments, parse, train
from experiments.train.stages_25hz import StageOptions, prepare_stage
from qtts_jax import data
from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
from qtts_jax.functional import abstract, initialize
from qtts_jax.io.checkpoint import load_params, read_config
from qtts_jax.io.config_file import read_json
from qtts_jax.models.tokenizer_25hz import Tokenizer25Hz
from qtts_jax.speech_tokenizer.reference_voice import CAMPPLUS
from qtts_jax.speech_tokenizer.voice_files import read_voices
from qtts_jax.training.export import save_tokenizer_25hz
from qtts_jax.training.state import TrainState


def main() -> None:
    """Train for one session and write the model."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("stage", choices=STAGES, help="part to train")
    parser.add_argument("--data", type=Path, required=True, help="prepared dataset")
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), default="nano", help="sizes and settings"
    )
    parser.add_argument("--config", type=Path, help="config.json of a 25 Hz tokenizer")
    parser.add_argument(
        "--model", type=Path, help="25 Hz tokenizer whose other parts are kept; flow needs one"
    )
    parser.add_argument(
        "--whisper",
        type=Path,
        help="encoder: converted Whisper encoder to begin as (default: random)",
    )
    parser.add_argument(
        "--continue-part",
        action="store_true",
        help="begin with the flow or vocoder of --model (default: random)",
    )
    parser.add_argument(
        "--xvectors", type=Path, help="folder with campplus.onnx, for x-vectors of the clips"
    )
    parser.add_argument("--rows", type=int, help="batch size (default: that of the preset)")
    parser.add_argument("--no-discriminator", action="store_true", help="vocoder: mel loss only")
    add_arguments(parser, TRAINERS["encoder"])
    args = parse(parser)
    if args.stage == "flow" and args.model is None:
        parser.error("flow needs --model, whose codes it decodes")
    if args.whisper is not None and (args.stage != "encoder" or args.model or args.start):
        parser.error("--whisper needs the stage encoder, without --model and --start")
    if args.continue_part and (args.model is None or args.stage not in ("flow", "vocoder")):
        parser.error("--continue-part needs --model and the stage flow or vocoder")
    session(args)


def session(args: argparse.Namespace) -> None:
    """One training session.

    Raises:
        QTTSError: the dataset or the tokenizer cannot be used, or training cannot go on.
    """
    stopwatch = Stopwatch()
    recipe = PRESETS[args.preset]()
    config, start = recipe.tokenizer, None
    if args.model is not None:
        config = Tokenizer25HzConfig.from_hf(read_config(args.model))
        start = load_params(args.model, abstract(Tokenizer25Hz, config)[1])
    elif args.config is not None:
        config = Tokenizer25HzConfig.from_hf(read_json(args.config))
    if args.no_discriminator:
        vocoder = dataclasses.replace(recipe.vocoder, discriminator=None)
        recipe = dataclasses.replace(recipe, vocoder=vocoder)
    dataset = data.Dataset(args.data)
    clips = data.load_waves(dataset, dataset.select("train"))
    stopwatch.log(f"{len(clips)} clips, {clips.seconds / 3600:.2f} h, loaded")
    options = StageOptions(
        args.stage,
        args.dtype,
        args.rows,
        args.seed,
        args.threads,
        args.model,
        args.continue_part,
        args.xvectors,
        args.whisper,
    )
    prepared = prepare_stage(options, recipe, config, start, clips, dataset)

    def write(state: TrainState) -> None:
        whole = initialize(Tokenizer25Hz, config, args.seed) if start is None else start
        voices, network = prepared.voices, None
        if args.model is not None:
            voices = voices or read_voices(args.model)
            network = args.model / CAMPPLUS
        if args.xvectors is not None:
            network = args.xvectors / CAMPPLUS
        save_tokenizer_25hz(
            args.out / "model",
            config,
            prepared.merge(jax.device_get(whole), state),
            voices,
            speaker_network=network if network is not None and network.is_file() else None,
        )

    try:
        train(args, TRAINERS[args.stage], prepared.task, prepared.batches, [], stopwatch, write)
    finally:
        prepared.batches.close()


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
