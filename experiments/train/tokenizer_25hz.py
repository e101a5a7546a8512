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

DATASET is made by `python -m qtts_jax.data prepare` at the output rate of the tokenizer (24 kHz).
Voices of its speakers are written with the flow: the checkpoint decodes with them by name, with
"default" else. Without --xvectors all x-vectors are zeros, and the reference mel alone carries the
voice."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import command
from experiments.train.recipe_25hz import PRESETS, STAGES, TRAINERS, Recipe25Hz
from experiments.train.run import Stopwatch, add_arguments, parse, train
from qtts_jax import data
from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params, abstract, initialize
from qtts_jax.io.checkpoint import load_params, read_config
from qtts_jax.io.config_file import read_json
from qtts_jax.models.speaker_encoder import min_frames
from qtts_jax.models.tokenizer_25hz import Tokenizer25Hz
from qtts_jax.speech_tokenizer.codec_25hz import DEFAULT_VOICE
from qtts_jax.speech_tokenizer.reference_voice import CAMPPLUS, ReferenceVoice
from qtts_jax.speech_tokenizer.voice_files import read_voices
from qtts_jax.training.export import save_tokenizer_25hz
from qtts_jax.training.hooks import averaged
from qtts_jax.training.state import TrainState
from qtts_jax.training.task import Task
from qtts_jax.training.tokenizer_25hz.encoder_task import EncoderTask
from qtts_jax.training.tokenizer_25hz.flow_task import FLOW, FlowTask
from qtts_jax.training.tokenizer_25hz.vocoder_task import VOCODER, VocoderTask

Voices = dict[str, ReferenceVoice]


class Prepared(NamedTuple):
    """What a stage trains with.

    Attributes:
        task, batches: for the trainer.
        merge: (whole tree, state) -> the tree with the part that the stage trains.
        voices: of the speakers; {} for those of --model.
    """

    task: Task
    batches: Any
    merge: Callable[[Params, TrainState], Params]
    voices: Voices


def encoder_stage(
    args: argparse.Namespace,
    recipe: Recipe25Hz,
    config: Tokenizer25HzConfig,
    start: Params | None,
    clips: data.Waves,
    dataset: data.Dataset,
) -> Prepared:
    """Stages "encoder" and "mel"."""
    c = config.encoder
    task = EncoderTask(
        config,
        recipe.heads,
        recipe.encoder_training(args.stage),
        dtype=args.dtype,
        start=None if start is None else start["encoder"],
    )
    batches = data.TranscribedBatches(
        data.resampled_waves(clips, c.sample_rate),
        [data.byte_ids(dataset.records[i].text) for i in clips.indices],
        rows=args.rows or recipe.rows[args.stage],
        samples_per_code=c.samples_per_code,
        hop=c.samples_per_code // c.frames_per_code,
        seconds=recipe.seconds,
        seed=args.seed,
        threads=args.threads,
    )
    if batches.left_out:
        print(f"{batches.left_out} clips are longer than {recipe.seconds:g} s and left out")

    def merge(whole: Params, state: TrainState) -> Params:
        return whole | {"encoder": task.encoder_params(averaged(state), state.extras)}

    return Prepared(task, batches, merge, {})


def flow_stage(
    args: argparse.Namespace,
    recipe: Recipe25Hz,
    config: Tokenizer25HzConfig,
    start: Params,
    clips: data.Waves,
    dataset: data.Dataset,
) -> Prepared:
    """Stage "flow": codes of the encoder of --model, mel frames, references of the speakers."""
    dit = config.decoder.dit
    flow = start["decoder"]["flow"] if args.continue_part else None
    task = FlowTask(config, recipe.flow, dtype=args.dtype, start=flow)
    codes = data.encode_dataset(dataset, args.model)
    waves = data.resampled_waves(clips, config.encoder.sample_rate)
    # A reference recording is brought to one level before its mel is taken; a target is not.
    references = data.clip_mels(data.normalized_waves(waves), dit.n_mels)
    xvectors = data.clip_xvectors(waves, dit.xvector_width, args.xvectors)
    if args.xvectors is None:
        print("no x-vectors: the reference mel alone carries the voice (--xvectors)")
    speakers = [dataset.records[i].speaker for i in clips.indices]
    batches = data.FlowBatches(
        [codes[int(i)] for i in clips.indices],
        data.clip_mels(waves, dit.n_mels),
        references,
        speakers,
        xvectors,
        rows=args.rows or recipe.rows["flow"],
        length=recipe.codes,
        repeats=dit.repeats,
        reference_frames=recipe.reference_frames,
        least_reference=min_frames(dit.reference_encoder),
        seed=args.seed,
        threads=args.threads,
    )
    voices = speaker_voices(speakers, references, xvectors, recipe.reference_frames)

    def merge(whole: Params, state: TrainState) -> Params:
        return whole | {"decoder": whole["decoder"] | {"flow": averaged(state)[FLOW]}}

    return Prepared(task, batches, merge, voices)


def vocoder_stage(
    args: argparse.Namespace,
    recipe: Recipe25Hz,
    config: Tokenizer25HzConfig,
    start: Params | None,
    clips: data.Waves,
    dataset: data.Dataset,
) -> Prepared:
    """Stage "vocoder": mel frames and samples of the recordings."""
    c = config.decoder.vocoder
    vocoder = start["decoder"]["vocoder"] if start is not None and args.continue_part else None
    training = recipe.vocoder
    if args.no_discriminator:
        training = dataclasses.replace(training, discriminator=None)
    task = VocoderTask(config, training, dtype=args.dtype, start=vocoder)
    waves = data.resampled_waves(clips, config.encoder.sample_rate)
    batches = data.VocoderBatches(
        clips,
        data.clip_mels(waves, c.n_mels),
        samples_per_frame=c.samples_per_frame,
        rows=args.rows or recipe.rows["vocoder"],
        frames=recipe.vocoder_frames,
        seed=args.seed,
        threads=args.threads,
    )

    def merge(whole: Params, state: TrainState) -> Params:
        return whole | {"decoder": whole["decoder"] | {"vocoder": averaged(state)[VOCODER]}}

    return Prepared(task, batches, merge, {})


def speaker_voices(
    speakers: list[str], references: list[np.ndarray], xvectors: np.ndarray, most: int
) -> Voices:
    """A voice for every speaker: mean x-vector, and the beginning of the longest clip.

    "default" is the speaker with most clips.

    Args:
        most: frames of a reference.
    """
    voices: Voices = {}
    counts: dict[str, int] = {}
    for name in dict.fromkeys(speakers):
        clips = [i for i, speaker in enumerate(speakers) if speaker == name]
        mean = xvectors[clips].mean(axis=0)
        mean /= max(float(np.linalg.norm(mean)), 1e-12)
        longest = max(clips, key=lambda i: len(references[i]))
        mel = references[longest][:most].astype(np.float32)
        voices[name.lower()], counts[name.lower()] = ReferenceVoice(mean, mel), len(clips)
    return voices | {DEFAULT_VOICE: voices[max(counts, key=lambda name: counts[name])]}


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
    dataset = data.Dataset(args.data)
    if dataset.sample_rate != config.output_sample_rate:
        raise ConfigError(
            f"{args.data} has {dataset.sample_rate} Hz and the tokenizer decodes "
            f"{config.output_sample_rate} Hz; prepare the dataset at that rate."
        )
    clips = data.load_waves(dataset, dataset.select("train"))
    stopwatch.log(f"{len(clips)} clips, {clips.seconds / 3600:.2f} h, loaded")
    prepare: Any = {"flow": flow_stage, "vocoder": vocoder_stage}.get(args.stage, encoder_stage)
    prepared: Prepared = prepare(args, recipe, config, start, clips, dataset)

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
