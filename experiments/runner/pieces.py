"""Library of the ablations: the pieces of a run: tokenizer -> codes -> talker -> scores.

Where a Whisper encoder is the semantic teacher, its features come first.
"""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import command
from experiments.nano.text_vocabulary import save_text
from experiments.runner.chain import Piece, Records, key_of
from experiments.runner.joined import joined
from experiments.runner.recipe import Recipe, Stage, Stage25Hz
from experiments.runner.scale import Scale
from experiments.runner.scoring import Scoring, score
from experiments.runner.teacher import store, stored
from experiments.runner.tokenizer_25hz import Inputs25Hz, tokenizer_25hz
from experiments.runner.training import Totals, train
from qtts_jax import data
from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
from qtts_jax.data.splits import TRAIN
from qtts_jax.errors import ConfigError
from qtts_jax.evaluation.sample import evenly
from qtts_jax.functional import Params, abstract
from qtts_jax.io.atomic_directory import new_directory
from qtts_jax.io.checkpoint import load_params
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.speech_tokenizer.base import FOLDER
from qtts_jax.text.bpe import TextTokenizer, copy_text_files
from qtts_jax.training.export import save_talker, save_tokenizer
from qtts_jax.training.hooks import averaged
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig
from qtts_jax.training.tokenizer.task import TokenizerTask

MODEL, FEATURES = "model", "features.npz"
# Of the talkers of ablations; those of the shipped voice (experiments/train/talker.py).
GENERATION = {"repetition_penalty": 1.0, "temperature": 0.15, "subtalker_temperature": 0.1}


@dataclass(frozen=True)
class Setting:
    """What the runs of an ablation share.

    Attributes:
        scale: sizes and schedules.
        root: folder of all pieces.
        dataset: prepared recordings.
        teacher: stored features (.npz) or a converted Whisper encoder; None without one.
        judges: kinds of judges that score.
        minutes: longest training of a run; None without a limit.
    """

    scale: Scale
    root: Path
    dataset: data.Dataset
    teacher: Path | None
    judges: tuple[str, ...]
    minutes: float | None = None


def pieces_of(setting: Setting, recipe: Recipe, seed: int) -> list[Piece]:
    """The pieces of a run. Those of runs that differ elsewhere have the same keys.

    Raises:
        ConfigError: the recipe has a semantic teacher, or an encoder that begins as one, and the
            setting none.
    """
    clips = setting.scale.tokenizer_clips
    settings = (recipe.tokenizer, recipe.stages, recipe.crop_seconds, clips)
    digest = setting.dataset.digest
    tokenizer = key_of(
        "tokenizer", settings, seed, digest, _teacher_key(setting.teacher), setting.minutes
    )
    talker = key_of(
        tokenizer, recipe.model, sorted(recipe.talker_options.items()), recipe.talker_batches,
        recipe.talker_trainer, recipe.sentences_per_clip,
    )  # fmt: skip
    scoring = Scoring(setting.judges, setting.scale.test_clips, setting.scale.seconds)
    trainings = len(recipe.stages) + 1
    seconds = None if setting.minutes is None else 60 * setting.minutes / trainings
    models = {"tokenizer": setting.root / f"tokenizer-{tokenizer}" / MODEL,
              "talker": setting.root / f"talker-{talker}" / MODEL}  # fmt: skip
    learns = any(isinstance(stage, Stage) and _learns(stage) for stage in recipe.stages)
    begins = any(isinstance(stage, Stage25Hz) and stage.from_teacher for stage in recipe.stages)
    is_encoder = setting.teacher is not None and setting.teacher.is_dir()
    if (learns and setting.teacher is None) or (begins and not is_encoder):
        raise ConfigError(
            "the tokenizer learns from a semantic teacher; --teacher names a Whisper encoder of "
            "`python -m qtts_jax.data teacher`."
        )
    features, first = setting.teacher, []
    if learns and is_encoder:
        key = key_of("features", digest, _teacher_key(setting.teacher), clips)
        features = setting.root / f"features-{key}" / FEATURES
        first = [Piece("features", key, functools.partial(_features, setting))]
    return [
        *first,
        Piece("tokenizer", tokenizer,
              functools.partial(_tokenizer, setting, recipe, seed, seconds, features)),
        Piece("codes", tokenizer, functools.partial(_codes, setting, models["tokenizer"])),
        Piece("talker", talker,
              functools.partial(_talker, setting, recipe, seed, seconds, models["tokenizer"])),
        Piece("scores", key_of(talker, recipe.sentences_scored, scoring),
              functools.partial(_scores, setting, recipe, scoring, models["talker"])),
    ]  # fmt: skip


def _teacher_key(teacher: Path | None) -> str | None:
    """A hash of the names and sizes of a teacher's files, wherever they lie."""
    if teacher is None:
        return None
    files = [teacher] if teacher.is_file() else sorted(p for p in teacher.rglob("*") if p.is_file())
    return key_of([(file.name, file.stat().st_size) for file in files])


def _learns(stage: Stage) -> bool:
    """Whether a semantic teacher trains codebook 0 in a stage."""
    return stage.training.teacher_width is not None and stage.training.learns_codes


def tokenizer_waves(setting: Setting) -> data.Waves:
    """The training clips of a tokenizer."""
    chosen = setting.dataset.select(TRAIN)
    most = setting.scale.tokenizer_clips
    return data.load_waves(setting.dataset, evenly(chosen, most or len(chosen)), progress=False)


def _features(setting: Setting, folder: Path, _: Records) -> dict[str, Any]:
    """Features of a Whisper encoder for the training clips of a tokenizer."""
    waves = tokenizer_waves(setting)
    assert setting.teacher is not None
    found = data.teacher_features(waves, setting.teacher, progress=False)
    store(folder / FEATURES, found)
    return {"clips": len(waves), "features": len(found.values)}


def _tokenizer(
    setting: Setting,
    recipe: Recipe,
    seed: int,
    seconds: float | None,
    features: Path | None,
    folder: Path,
    _: Records,
) -> dict[str, Any]:
    """Train all stages and export the tokenizer.

    Args:
        features: of the semantic teacher.
    """
    if isinstance(recipe.tokenizer, Tokenizer25HzConfig):
        dtype = recipe.talker_options["dtype"]
        inputs = Inputs25Hz(setting.dataset, tokenizer_waves(setting), setting.teacher, str(dtype))
        return tokenizer_25hz(inputs, recipe, seed, seconds, folder, MODEL)
    waves = tokenizer_waves(setting)
    start: Params | None = None
    stages = []
    for number, stage in enumerate(recipe.stages):
        task = TokenizerTask(
            recipe.tokenizer, stage.training, dtype=recipe.talker_options["dtype"], start=start
        )
        samples = recipe.tokenizer.samples_per_frame
        batches = data.TokenizerBatches(
            waves,
            rows=stage.rows,
            frames=round(recipe.crop_seconds * recipe.frame_rate),
            samples_per_frame=samples,
            seed=seed,
            teacher=stored(features, waves) if features and _learns(stage) else None,
        )

        def totals(batch: dict[str, np.ndarray]) -> Totals:
            return {"audio_seconds": batch["audio"].size / waves.sample_rate}

        place = folder / f"stage{number}"
        try:
            state, done = train(task, batches, totals, stage.trainer, place, seed, seconds)
        finally:
            batches.close()
        params = task.tokenizer_params(averaged(state), state.extras)
        save_tokenizer(place / MODEL, recipe.tokenizer, params)
        start = load_params(place / MODEL, abstract(Tokenizer12Hz, recipe.tokenizer)[1])
        stages.append(done)
    if not (folder / MODEL).is_dir():
        with new_directory(folder / MODEL, overwrite=False) as out:
            shutil.copytree(place / MODEL, out, dirs_exist_ok=True)
    return {"stages": stages, "parameters": sum(x.size for x in jax.tree.leaves(start))}


def _codes(setting: Setting, tokenizer: Path, folder: Path, _: Records) -> dict[str, Any]:
    """Encode all clips; the codes lie beside the dataset."""
    codes = data.encode_dataset(setting.dataset, tokenizer, progress=False)
    return {"clips": len(codes), "frames": int(codes.frames(range(len(codes))).sum())}


def _talker(
    setting: Setting,
    recipe: Recipe,
    seed: int,
    seconds: float | None,
    tokenizer: Path,
    folder: Path,
    _: Records,
) -> dict[str, Any]:
    """Train the talker with its code predictor and export them with the tokenizer."""
    dataset = setting.dataset
    merges = setting.scale.vocabulary([dataset.records[i] for i in dataset.select(TRAIN)])
    text_folder = folder / "text"
    if not text_folder.is_dir():
        with new_directory(text_folder, overwrite=False) as out:
            save_text(out, merges)
    if recipe.sentences_per_clip > 1:
        name = f"joined{recipe.sentences_per_clip}-{dataset.digest[:12]}"
        dataset = joined(
            dataset, recipe.sentences_per_clip, setting.root / name, dataset.select(TRAIN)
        )
    codes = data.encode_dataset(dataset, tokenizer, progress=False)
    task = TalkerTask(TalkerTaskConfig(recipe.model, **recipe.talker_options))
    batches = data.TalkerBatches(
        recipe.model,
        dataset,
        codes,
        TextTokenizer.from_dir(text_folder),
        replace(recipe.talker_batches, seed=seed),
        split=TRAIN,
    )
    codebooks = recipe.tokenizer.codebooks

    def totals(batch: dict[str, np.ndarray]) -> Totals:
        frames = int(batch["frames"].sum())
        return {
            "clips": int((batch["frames"] > 0).sum()),
            "frames": frames,
            "codes": frames * codebooks,
            "audio_seconds": frames / recipe.frame_rate,
        }

    try:
        state, done = train(
            task, batches, totals, recipe.talker_trainer, folder / "training", seed, seconds
        )
    finally:
        batches.close()
    with new_directory(folder / MODEL, overwrite=True) as out:
        params = task.model_params(averaged(state), state.extras)
        limit = round(setting.scale.seconds * recipe.frame_rate)
        save_talker(out, recipe.model, params, {"max_new_tokens": limit, **GENERATION})
        copy_text_files(text_folder, out)
        shutil.copytree(tokenizer, out / FOLDER)
    return done


def _scores(
    setting: Setting, recipe: Recipe, scoring: Scoring, model: Path, folder: Path, _: Records
) -> dict[str, Any]:
    """Score the checkpoint on held-out clips."""
    scores, missing = score(recipe, model, setting.dataset, scoring, folder)
    return {"scores": scores, "not_measured": missing, "judges": list(scoring.judges)}


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
