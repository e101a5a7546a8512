"""Fine-tune a released checkpoint to a new preset speaker, from transcribed recordings.

    python -m convert Qwen/Qwen3-TTS-12Hz-0.6B-Base models/0.6B-Base
    python -m qtts_jax.data prepare ada.jsonl ada --keep train validation
    python -m experiments.train.new_speaker --data ada --model models/0.6B-Base --speaker ada \
        --out runs/ada --minutes 20 --decay-minutes 5
    qtts say "Hello there." --model runs/ada/model --speaker ada -o hello.wav

The embedding of the new codec id starts as the mean x-vector of the speaker's clips, so the speaker
starts as a clone; training continues from there. `--lora 16` trains adapters of that rank instead
of all weights, in a fraction of the memory. The same command again continues the run. RUN/model is
a checkpoint of type custom_voice; `python -m convert --to-torch` converts it for the official
package. `--model` needs a 12 Hz Base checkpoint, because the others have no speaker encoder."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from experiments import command
from experiments.train.run import Stopwatch, add_arguments, parse, talker_batch_config, train
from qtts_jax import QwenTTS, data, processes
from qtts_jax.configs.tts import TOKENIZER_12HZ, TTSConfig
from qtts_jax.data.talker_layout import LayoutMix
from qtts_jax.errors import ConfigError, DataError
from qtts_jax.functional import abstract
from qtts_jax.io.checkpoint import load_params, read_config
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.speech_tokenizer.base import FOLDER
from qtts_jax.text.bpe import TextTokenizer
from qtts_jax.training.export import export_checkpoint
from qtts_jax.training.hooks import averaged, held_out_loss
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.state import TrainState
from qtts_jax.training.talker.lora import LoraConfig
from qtts_jax.training.talker.new_speaker import add_speaker
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig
from qtts_jax.training.trainer import Hook
from qtts_jax.training.trainer_config import TrainerConfig

# Only the new preset speaker, with and without streamed text and language tag.
MIX = LayoutMix(
    stream_text=0.5, language_tag=0.5, preset=1.0, no_speaker=0.0, in_context=0.0, instruct=0.0
)
_WHOLE = OptimizerConfig(1e-5, warmup_steps=50, b2=0.98, weight_decay=0.01)
TRAINER = TrainerConfig(
    steps=1_000_000,  # an upper bound
    optimizers={
        "talker": _WHOLE,
        "code_predictor": _WHOLE,
        "lora": OptimizerConfig(2e-4, warmup_steps=50, b2=0.98),
    },
    # Fine-tuning starts at a loss of a few units; uniform predictions have 10 (ln 3072 + 0.3 ln
    # 2048). A rise by half of that is more than noise.
    divergence_margin=5.0,
)
HELD_OUT_BATCHES = 2


def clips_of(dataset: data.Dataset, speaker: str, split: str) -> list[int]:
    """The clips of a speaker in a split, perhaps none."""
    return [r.index for r in dataset.records if (r.speaker, r.split) == (speaker, split)]


def x_vectors(model: Path, dataset: data.Dataset, clips: list[int]) -> np.ndarray:
    """The x-vectors of clips by the speaker encoder of a checkpoint, float32 [N, D].

    Raises:
        RequestError: the checkpoint has no speaker encoder.
    """
    tts = QwenTTS.from_pretrained(model)
    recordings = [(dataset.wave(i), dataset.sample_rate) for i in clips]
    prompts = tts.create_voice_clone_prompt(recordings, x_vector_only_mode=True)
    return np.stack([np.asarray(p.ref_spk_embedding, np.float32).ravel() for p in prompts])


def main() -> None:
    """Train for one session and write the checkpoint."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--data", type=Path, required=True, help="prepared dataset")
    parser.add_argument("--model", type=Path, required=True, help="converted Base checkpoint")
    parser.add_argument("--speaker", required=True, help="name of the speaker in the dataset")
    parser.add_argument("--lora", type=int, help="rank of adapters (default: train all weights)")
    parser.add_argument("--voice-clips", type=int, default=16, help="clips of the mean x-vector")
    parser.add_argument(
        "--positions", type=int, nargs="+", default=[128, 256, 512], help="bucket lengths"
    )
    parser.add_argument("--batch-positions", type=int, default=4096, help="positions of a batch")
    parser.add_argument(
        "--predictor-chunk", type=int, default=4096, help="frames of a chunk of the predictor loss"
    )
    parser.add_argument("--held-out-every", type=int, default=100, help="steps; 0 for never")
    add_arguments(parser, TRAINER)
    args = parse(parser)
    session(args)


def session(args: argparse.Namespace) -> None:
    """One training session.

    Raises:
        DataError: the speaker has no clips to train with.
        RequestError: the checkpoint has no speaker encoder.
        ConfigError: it is of 25 Hz, or the name of the speaker is taken.
    """
    stopwatch = Stopwatch()
    dataset = data.Dataset(args.data)
    chosen = {split: clips_of(dataset, args.speaker, split) for split in ("train", "validation")}
    if not chosen["train"]:
        known = ", ".join(sorted({r.speaker for r in dataset.records}))
        raise DataError(
            f"{args.data} has no training clips of {args.speaker!r}; its speakers are {known}."
        )
    config = TTSConfig.from_hf(read_config(args.model))
    if config.tokenizer_type != TOKENIZER_12HZ:
        raise ConfigError(
            f"{args.model} generates codes of 25 Hz; take a Base checkpoint of 12 Hz."
        )
    vectors = x_vectors(args.model, dataset, chosen["train"][: args.voice_clips])
    params = load_params(args.model, abstract(TTSModel, config)[1])
    config, params = add_speaker(config, params, args.speaker, vectors)
    codes = processes.in_turn(lambda: data.encode_dataset(dataset, args.model / FOLDER))
    stopwatch.log(f"{len(dataset)} clips encoded, {len(vectors)} of them for the mean x-vector")
    task = TalkerTask(
        TalkerTaskConfig(
            config,
            dtype=args.dtype,
            predictor_chunk=args.predictor_chunk,
            train=("talker", "code_predictor") if args.lora is None else (),
            lora=None if args.lora is None else LoraConfig(args.lora, 2.0 * args.lora),
        ),
        params,
    )
    text = TextTokenizer.from_dir(args.model)

    def batches(split: str, stop: int | None, threads: int) -> data.TalkerBatches:
        return data.TalkerBatches(
            config,
            dataset,
            codes,
            text,
            talker_batch_config(args, args.model / FOLDER, split, MIX),
            indices=chosen[split],
            threads=threads,
            stop=stop,
        )

    def write(state: TrainState) -> None:
        trained = task.model_params(averaged(state), state.extras)
        export_checkpoint(args.model, args.out / "model", config, trained, overwrite=True)

    hooks = []
    if args.held_out_every and not chosen["validation"]:
        print(f"no held-out loss: {args.data} has no clips of the split validation of that speaker")
    elif args.held_out_every:
        held = list(batches("validation", HELD_OUT_BATCHES, 0))
        hooks.append(Hook(args.held_out_every, held_out_loss(task.loss, held)))
    training = batches("train", None, args.threads)
    try:
        train(args, TRAINER, task, training, hooks, stopwatch, write)
    finally:
        training.close()


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
