"""Library of 25 Hz tokenizer training: task and batches of a stage from a prepared dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import command
from experiments.train.recipe_25hz import Recipe25Hz, Stage
from qtts_jax import data
from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params
from qtts_jax.models.speaker_encoder import min_frames
from qtts_jax.speech_tokenizer.codec_25hz import DEFAULT_VOICE
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.training.hooks import averaged
from qtts_jax.training.state import TrainState
from qtts_jax.training.task import Task
from qtts_jax.training.tokenizer_25hz.encoder_task import EncoderTask
from qtts_jax.training.tokenizer_25hz.flow_task import FLOW, FlowTask
from qtts_jax.training.tokenizer_25hz.vocoder_task import VOCODER, VocoderTask
from qtts_jax.training.tokenizer_25hz.whisper_start import whisper_start

Voices = dict[str, ReferenceVoice]


class Prepared(NamedTuple):
    """What a stage trains with.

    Attributes:
        task, batches: for the trainer.
        merge: (whole tree, state) -> the tree with the part that the stage trains.
        voices: of the speakers; {} where the stage makes none.
    """

    task: Task
    batches: Any
    merge: Callable[[Params, TrainState], Params]
    voices: Voices


@dataclass(frozen=True)
class StageOptions:
    """What a stage is given besides sizes and settings.

    Attributes:
        stage: its name.
        dtype: of the computation.
        rows: of a batch; None for those of the recipe.
        seed, threads: of the batches.
        model: checkpoint whose codes the flow decodes.
        continue_part: begin with the flow or vocoder of the checkpoint.
        xvectors: folder with `campplus.onnx`; None for x-vectors of zeros.
        whisper: converted Whisper encoder that a new encoder begins as; None for a random one.
    """

    stage: Stage
    dtype: str
    rows: int | None = None
    seed: int = 0
    threads: int = 1
    model: Path | None = None
    continue_part: bool = False
    xvectors: Path | None = None
    whisper: Path | None = None


def prepare_stage(
    options: StageOptions,
    recipe: Recipe25Hz,
    config: Tokenizer25HzConfig,
    start: Params | None,
    clips: data.Waves,
    dataset: data.Dataset,
) -> Prepared:
    """Task and batches of a stage.

    Args:
        recipe: settings; its sizes of the tokenizer are replaced by `config`.
        start: tree of `Tokenizer25Hz` of the stage before; None without one.
        clips: of the training split, at the output rate of the tokenizer.
        dataset: of these clips.

    Raises:
        ConfigError: the dataset has another rate, or the flow has no codes to decode.
        DataError: the clips do not fit the stage.
    """
    if dataset.sample_rate != config.output_sample_rate:
        raise ConfigError(
            f"{dataset.directory} has {dataset.sample_rate} Hz and the tokenizer decodes "
            f"{config.output_sample_rate} Hz; prepare the dataset at that rate."
        )
    if options.stage == "flow":
        return flow_stage(options, recipe, config, start, clips, dataset)
    if options.stage == "vocoder":
        return vocoder_stage(options, recipe, config, start, clips)
    return encoder_stage(options, recipe, config, start, clips, dataset)


def encoder_stage(
    options: StageOptions,
    recipe: Recipe25Hz,
    config: Tokenizer25HzConfig,
    start: Params | None,
    clips: data.Waves,
    dataset: data.Dataset,
) -> Prepared:
    """Stages "encoder" and "mel"."""
    c, encoder = config.encoder, None if start is None else start["encoder"]
    if options.whisper is not None:
        encoder = whisper_start(c, *data.load_whisper(options.whisper), options.seed)
    task = EncoderTask(
        config,
        recipe.heads,
        recipe.encoder_training(options.stage),
        dtype=options.dtype,
        start=encoder,
    )
    batches = data.TranscribedBatches(
        data.resampled_waves(clips, c.sample_rate),
        [data.byte_ids(dataset.records[i].text) for i in clips.indices],
        rows=options.rows or recipe.rows[options.stage],
        samples_per_code=c.samples_per_code,
        hop=c.samples_per_code // c.frames_per_code,
        seconds=recipe.seconds,
        seed=options.seed,
        threads=options.threads,
    )
    if batches.left_out:
        print(f"{batches.left_out} clips are longer than {recipe.seconds:g} s and left out")

    def merge(whole: Params, state: TrainState) -> Params:
        return whole | {"encoder": task.encoder_params(averaged(state), state.extras)}

    return Prepared(task, batches, merge, {})


def flow_stage(
    options: StageOptions,
    recipe: Recipe25Hz,
    config: Tokenizer25HzConfig,
    start: Params | None,
    clips: data.Waves,
    dataset: data.Dataset,
) -> Prepared:
    """Stage "flow": codes of a trained encoder, mel frames, references of the speakers."""
    if options.model is None or start is None:
        raise ConfigError("the flow decodes the codes of a trained encoder; give a model.")
    dit = config.decoder.dit
    flow = start["decoder"]["flow"] if options.continue_part else None
    task = FlowTask(config, recipe.flow, dtype=options.dtype, start=flow)
    codes = data.encode_dataset(dataset, options.model)
    waves = data.resampled_waves(clips, config.encoder.sample_rate)
    # A reference recording is brought to one level before its mel is taken; a target is not.
    references = data.clip_mels(data.normalized_waves(waves), dit.n_mels)
    xvectors = data.clip_xvectors(waves, dit.xvector_width, options.xvectors)
    if options.xvectors is None:
        print("no x-vectors: the reference mel alone carries the voice (--xvectors)")
    speakers = [dataset.records[i].speaker for i in clips.indices]
    batches = data.FlowBatches(
        [codes[int(i)] for i in clips.indices],
        data.clip_mels(waves, dit.n_mels),
        references,
        speakers,
        xvectors,
        rows=options.rows or recipe.rows["flow"],
        length=recipe.codes,
        repeats=dit.repeats,
        reference_frames=recipe.reference_frames,
        least_reference=min_frames(dit.reference_encoder),
        seed=options.seed,
        threads=options.threads,
    )
    voices = speaker_voices(speakers, references, xvectors, recipe.reference_frames)

    def merge(whole: Params, state: TrainState) -> Params:
        return whole | {"decoder": whole["decoder"] | {"flow": averaged(state)[FLOW]}}

    return Prepared(task, batches, merge, voices)


def vocoder_stage(
    options: StageOptions,
    recipe: Recipe25Hz,
    config: Tokenizer25HzConfig,
    start: Params | None,
    clips: data.Waves,
) -> Prepared:
    """Stage "vocoder": mel frames and samples of the recordings."""
    c = config.decoder.vocoder
    vocoder = start["decoder"]["vocoder"] if start is not None and options.continue_part else None
    task = VocoderTask(config, recipe.vocoder, dtype=options.dtype, start=vocoder)
    waves = data.resampled_waves(clips, config.encoder.sample_rate)
    batches = data.VocoderBatches(
        clips,
        data.clip_mels(waves, c.n_mels),
        samples_per_frame=c.samples_per_frame,
        rows=options.rows or recipe.rows["vocoder"],
        frames=recipe.vocoder_frames,
        seed=options.seed,
        threads=options.threads,
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


if __name__ == "__main__":
    raise SystemExit(
        command.exit_status_of_library(
            __file__, "experiments.train.tokenizer_25hz", "experiments.run"
        )
    )
