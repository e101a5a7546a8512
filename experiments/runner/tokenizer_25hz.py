"""Library of the ablations: the stages of a 25 Hz tokenizer, each from the one before."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import command
from experiments.runner.recipe import Recipe, Stage25Hz
from experiments.runner.training import Totals, train
from experiments.train.stages_25hz import StageOptions, Voices, prepare_stage
from qtts_jax import data
from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
from qtts_jax.functional import Params, abstract, initialize
from qtts_jax.io.atomic_directory import new_directory
from qtts_jax.io.checkpoint import load_params
from qtts_jax.models.tokenizer_25hz import Tokenizer25Hz
from qtts_jax.training.export import save_tokenizer_25hz

FRAMES_PER_SECOND = 100  # of mel


def audio_seconds(batch: dict[str, np.ndarray], repeats: int) -> float:
    """Speech in a batch of any stage."""
    if "frames" in batch:
        return float(batch["frames"].sum()) / FRAMES_PER_SECOND
    if "lengths" in batch:
        return float(batch["lengths"].sum()) * repeats / FRAMES_PER_SECOND
    return batch["mel"].shape[0] * batch["mel"].shape[1] / FRAMES_PER_SECOND


@dataclass(frozen=True)
class Inputs25Hz:
    """What the training of a 25 Hz tokenizer is given besides its recipe.

    Attributes:
        dataset: of the clips.
        clips: that it is trained on.
        whisper: converted Whisper encoder, for stages that begin as it.
        dtype: of the computation.
    """

    dataset: data.Dataset
    clips: data.Waves
    whisper: Path | None
    dtype: str


def tokenizer_25hz(
    given: Inputs25Hz,
    recipe: Recipe,
    seed: int,
    seconds: float | None,
    folder: Path,
    model: str,
) -> dict[str, Any]:
    """Train all stages and export the tokenizer as `folder / model`; what to record.

    Each stage continues the encoder of the one before, and keeps its other parts.

    Args:
        seconds: longest training of a stage.
    """
    config = recipe.tokenizer
    assert isinstance(config, Tokenizer25HzConfig)
    whole: Params = initialize(Tokenizer25Hz, config, seed)
    start: Params | None = None
    before: Path | None = None
    voices: Voices = {}
    stages = []
    for number, stage in enumerate(recipe.stages):
        assert isinstance(stage, Stage25Hz)
        whisper = given.whisper if stage.from_teacher else None
        options = StageOptions(stage.name, given.dtype, seed=seed, model=before, whisper=whisper)
        prepared = prepare_stage(options, stage.settings, config, start, given.clips, given.dataset)

        def totals(batch: dict[str, np.ndarray]) -> Totals:
            return {"audio_seconds": audio_seconds(batch, config.decoder.dit.repeats)}

        place = folder / f"stage{number}"
        try:
            state, done = train(
                prepared.task, prepared.batches, totals, stage.trainer, place, seed, seconds
            )
        finally:
            prepared.batches.close()
        voices = prepared.voices or voices
        tree = prepared.merge(jax.device_get(whole if start is None else start), state)
        before = save_tokenizer_25hz(place / model, config, tree, voices)
        start = load_params(before, abstract(Tokenizer25Hz, config)[1])
        stages.append(done)
    assert before is not None
    if not (folder / model).is_dir():
        with new_directory(folder / model, overwrite=False) as out:
            shutil.copytree(before, out, dirs_exist_ok=True)
    return {"stages": stages, "parameters": sum(x.size for x in jax.tree.leaves(whole))}


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
