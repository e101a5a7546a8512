"""Train a talker from a prepared dataset and a tokenizer, in sessions that resume the run.

    python -m experiments.train.talker --data DATASET --tokenizer runs/tokenizer/model \
        --out runs/talker --minutes 6 --decay-minutes 1

The same command again continues the run. RUN/model is a whole checkpoint (averaged weights,
bfloat16, with text files and the tokenizer, for `QwenTTS.from_pretrained`), RUN/best the one of
this session with the lowest loss on held-out clips, RUN/weights the argument of `--start` of
another run (`experiments.transfer`), metrics.jsonl the curves.

The codes of the dataset are computed once for a tokenizer and kept beside it. Preset speakers are
those of the dataset without the `derived` ones; references for cloning are other clips of the same
speaker. The default is the nano talker; `--config` takes any `config.json` of a 12 Hz model with
its text files beside it, and `--model` starts from the parameters of a checkpoint."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from experiments import command
from experiments.nano.talker_recipe import (
    NANO_ALIGNMENT_WEIGHT,
    NANO_BATCH_POSITIONS,
    NANO_CODE_NOISE,
    NANO_MERGES,
    NANO_MIX,
    NANO_POSITIONS,
    NANO_PREDICTOR_FRAMES,
    NANO_PREDICTOR_WEIGHT,
    NANO_RARE_TIMES,
    NANO_TALKER_TRAINER,
    NANO_TOKEN_LETTERS,
    nano_speaker_encoder,
    nano_talker,
)
from experiments.nano.text_vocabulary import Merge, learn_merges, save_text, text_ids
from experiments.nano.tokenizer_recipe import SAMPLE_RATE
from experiments.train.run import (
    Stopwatch,
    add_arguments,
    by_one_process,
    has_held_out,
    parse,
    talker_batch_config,
    train,
)
from qtts_jax import data, processes
from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import Params, abstract
from qtts_jax.io.atomic_directory import new_directory
from qtts_jax.io.checkpoint import load_params, read_config
from qtts_jax.io.config_file import read_json
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.speech_tokenizer.base import FOLDER
from qtts_jax.text.bpe import TextTokenizer, copy_text_files
from qtts_jax.training.export import save_talker
from qtts_jax.training.hooks import averaged, held_out_loss
from qtts_jax.training.state import TrainState
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig
from qtts_jax.training.trainer import Hook

# Lower temperatures than the released models, whose distributions are sharper; no repetition
# penalty, because a codebook this small must repeat codes.
GENERATION = {
    "max_new_tokens": 375,
    "repetition_penalty": 1.0,
    "temperature": 0.15,
    "subtalker_temperature": 0.1,
}
HELD_OUT_BATCHES = 2
MODEL, BEST = "model", "best"


def model_config(args: argparse.Namespace, dataset: data.Dataset) -> TTSConfig:
    """The configuration of the run: its own, the given one, or nano for the data at hand.

    Config and text files are kept in the directory of the run for later sessions.
    """
    kept = args.out / "text"
    if (kept / "config.json").is_file():
        return TTSConfig.from_hf(read_config(kept))
    merges: list[Merge] = []
    files: Path | None = None
    if args.model is not None:
        config, files = start_config(args.model), args.model
    elif args.config is not None:
        config, files = TTSConfig.from_hf(read_json(args.config)), args.config.parent
    else:
        speech = Tokenizer12HzConfig.from_hf(read_config(args.tokenizer))
        train = [dataset.records[i] for i in dataset.select("train")]
        speakers = preset_speakers(train, args.speaker_clips)
        languages = sorted({r.language for r in train})
        merges = learn_merges([r.text for r in train], NANO_MERGES, NANO_TOKEN_LETTERS)
        config = nano_talker(speech, text_ids(merges), tuple(languages), tuple(speakers))
    with new_directory(kept, overwrite=True, markers=("config.json",)) as out:
        (out / "config.json").write_text(json.dumps(config.to_hf(), indent=1) + "\n")
        if files is None:
            save_text(out, merges)
        else:
            copy_text_files(files, out)
    return config


def start_config(model: Path) -> TTSConfig:
    """The configuration of a checkpoint with type base.

    A checkpoint exported for preset speakers has no speaker encoder and gets a new one.
    """
    config = TTSConfig.from_hf(read_config(model))
    width = config.talker.transformer.width
    encoder = config.speaker_encoder or nano_speaker_encoder(SAMPLE_RATE, width)
    return dataclasses.replace(config, model_type="base", further_types=(), speaker_encoder=encoder)


def start_params(model: Path) -> Params:
    """The parameters of a checkpoint, without the speaker encoder if it has none."""
    config = TTSConfig.from_hf(read_config(model))
    return load_params(model, abstract(TTSModel, config)[1])


def preset_speakers(records: Iterable[data.Record], least: int) -> list[str]:
    """Speakers with at least `least` clips; the one with most is the default speaker.

    Derived voices (`derived`: shifted in pitch, or blended) are used only as clones.
    """
    clips = Counter(r.speaker for r in records if not r.extra.get("derived"))
    return [speaker for speaker, count in clips.most_common() if count >= least]


def voice_clips(dataset: data.Dataset, most: int | None) -> list[int]:
    """Clips that may be cloning references: the first `most` of every speaker."""
    taken: Counter[str] = Counter()
    chosen = []
    for record in dataset.records:
        if most is None or taken[record.speaker] < most:
            taken[record.speaker] += 1
            chosen.append(record.index)
    return chosen


def main() -> None:
    """Train for one session and write the model."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--data", type=Path, required=True, help="prepared dataset")
    parser.add_argument("--tokenizer", type=Path, required=True, help="speech tokenizer")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--config", type=Path, help="config.json of a model, with its text files")
    begin.add_argument("--model", type=Path, help="checkpoint of any type to start from")
    parser.add_argument(
        "--speaker-clips", type=int, default=5, help="least clips of a preset speaker"
    )
    parser.add_argument(
        "--voice-clips", type=int, help="most reference clips of a speaker (default: all)"
    )
    parser.add_argument(
        "--positions", type=int, nargs="+", default=list(NANO_POSITIONS), help="bucket lengths"
    )
    parser.add_argument(
        "--batch-positions", type=int, default=NANO_BATCH_POSITIONS, help="positions of a batch"
    )
    parser.add_argument(
        "--predictor-chunk", type=int, default=16384, help="frames of a chunk of the predictor loss"
    )
    parser.add_argument(
        "--predictor-frames",
        type=int,
        default=NANO_PREDICTOR_FRAMES,
        help="frames of a row that train the code predictor",
    )
    parser.add_argument(
        "--predictor-weight", type=float, default=NANO_PREDICTOR_WEIGHT, help="of its loss"
    )
    parser.add_argument(
        "--code-noise",
        type=float,
        default=NANO_CODE_NOISE,
        help="largest fraction of input frames replaced by random codes",
    )
    parser.add_argument(
        "--alignment-weight",
        type=float,
        default=NANO_ALIGNMENT_WEIGHT,
        help="of the text-alignment loss",
    )
    parser.add_argument(
        "--rare-speaker-repeats",
        type=int,
        default=NANO_RARE_TIMES,
        help="largest repeats of a rare speaker's clips in an epoch",
    )
    parser.add_argument("--held-out-every", type=int, default=1000, help="steps; 0 for never")
    add_arguments(parser, NANO_TALKER_TRAINER)
    args = parse(parser)
    session(args)


def session(args: argparse.Namespace) -> None:
    """One training session.

    Raises:
        QTTSError: the dataset, the tokenizer or the model cannot be used, or training cannot go on.
    """
    stopwatch = Stopwatch()
    dataset = data.Dataset(args.data)
    config = processes.in_turn(lambda: model_config(args, dataset))
    text = TextTokenizer.from_dir(args.out / "text")
    codes = processes.in_turn(lambda: data.encode_dataset(dataset, args.tokenizer))
    stopwatch.log(f"{len(dataset)} clips encoded")
    waves = data.load_waves(dataset, voice_clips(dataset, args.voice_clips))
    voices = data.describe_voices(dataset, waves)
    stopwatch.log(f"{waves.seconds / 3600:.2f} h, voices described")
    task = TalkerTask(
        TalkerTaskConfig(
            config,
            dtype=args.dtype,
            predictor_weight=args.predictor_weight,
            predictor_chunk=args.predictor_chunk,
            predictor_frames=args.predictor_frames,
            code_noise=args.code_noise,
            alignment_weight=args.alignment_weight,
        ),
        None if args.model is None else start_params(args.model),
    )

    def batches(split: str, stop: int | None, threads: int) -> data.TalkerBatches:
        return data.TalkerBatches(
            config,
            dataset,
            codes,
            text,
            talker_batch_config(args, args.tokenizer, split, NANO_MIX, args.rare_speaker_repeats),
            split=split,
            waves=waves,
            voices=voices,
            threads=threads,
            stop=stop,
        )

    def write(state: TrainState, name: str = MODEL) -> None:
        with new_directory(args.out / name, overwrite=True) as out:
            save_talker(out, config, task.model_params(averaged(state), state.extras), GENERATION)
            copy_text_files(args.out / "text", out)
            shutil.copytree(args.tokenizer, out / FOLDER)

    hooks = []
    if args.held_out_every and has_held_out(dataset, ("validation",), "held-out loss"):
        held = batches("validation", HELD_OUT_BATCHES, 0)
        # Generation feeds back the model's own codes, so the held-out loss has no code noise.
        noiseless = TalkerTask(dataclasses.replace(task.config, code_noise=0.0))
        run = held_out_loss(
            noiseless.loss, list(held), lambda state: by_one_process(write)(state, BEST)
        )
        hooks.append(Hook(args.held_out_every, run))
    training = batches("train", None, args.threads)
    print(f"batches {training.shapes}")

    try:
        train(args, NANO_TALKER_TRAINER, task, training, hooks, stopwatch, write)
    finally:
        training.close()


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
