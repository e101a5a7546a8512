"""Library of the ablations: sizes, schedules and recordings that all runs of a scale share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from experiments import command
from experiments.nano.talker_recipe import (
    NANO_ALIGNMENT_WEIGHT,
    NANO_CODE_NOISE,
    NANO_MIX,
    NANO_PREDICTOR_FRAMES,
    NANO_PREDICTOR_WEIGHT,
    NANO_TOKEN_LETTERS,
    nano_talker,
)
from experiments.nano.text_vocabulary import Merge, TextIds, learn_merges, text_ids
from experiments.runner.recipe import FAMILY, Changes, Recipe, Stage, Stage25Hz, changed
from experiments.train.recipe_25hz import PRESETS, STAGES, TRAINERS
from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.configs.tokenizer_25hz import TOKENIZER_25HZ, Tokenizer25HzConfig
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.data import Record, TalkerBatchConfig
from qtts_jax.training.trainer_config import TrainerConfig

# Preset speakers and no descriptions: what a talker of an ablation is trained on and speaks as.
PRESET_MIX = replace(NANO_MIX, preset=1.0, no_speaker=0.0, in_context=0.0, instruct=0.0)
# Losses and noise of the shipped voice, as arguments of `TalkerTaskConfig`.
NANO_TALKER_OPTIONS: dict[str, object] = {
    "dtype": "bfloat16",
    "predictor_weight": NANO_PREDICTOR_WEIGHT,
    "predictor_chunk": 16384,
    "predictor_frames": NANO_PREDICTOR_FRAMES,
    "code_noise": NANO_CODE_NOISE,
    "alignment_weight": NANO_ALIGNMENT_WEIGHT,
}


@dataclass(frozen=True)
class Scale:
    """Sizes, schedules and recordings of all runs of a scale.

    Attributes:
        name: as in `--scale`.
        tokenizer, talker_options, talker_batches, talker_trainer: see `Recipe`.
        stages, crop_seconds: of the training of a tokenizer.
        tokenizer_25hz, stages_25hz: of the 25 Hz family.
        talker: the talker for a tokenizer, text ids, languages and speakers.
        merges: of the text vocabulary.
        judges: kinds of `evaluation.panel` that score by default.
        test_clips: clips that are scored.
        tokenizer_clips: training clips of the tokenizers, at most; None for all. They need fewer
            than the talkers, and hold them in memory as samples.
        seconds: longest utterance that is generated.
        own_speech: the shipped voice makes the recordings; otherwise `--data` names them.
    """

    name: str
    tokenizer: Tokenizer12HzConfig
    stages: tuple[Stage, ...]
    crop_seconds: float
    talker: Callable[[Tokenizer12HzConfig, TextIds, Sequence[str], Sequence[str]], TTSConfig]
    talker_options: dict[str, object]
    talker_batches: TalkerBatchConfig
    talker_trainer: TrainerConfig
    merges: int
    judges: tuple[str, ...]
    test_clips: int
    seconds: float
    tokenizer_25hz: Tokenizer25HzConfig
    stages_25hz: tuple[Stage25Hz, ...]
    own_speech: bool = False
    tokenizer_clips: int | None = None

    def vocabulary(self, records: Iterable[Record]) -> list[Merge]:
        """The merges that the training texts teach."""
        return learn_merges([r.text for r in records], self.merges, NANO_TOKEN_LETTERS)

    def recipe(self, changes: Changes, records: Sequence[Record]) -> Recipe:
        """The recipe of a variation.

        The talker follows from the changed tokenizer, and further changes may follow on it.

        Args:
            changes: of the base recipe.
            records: training clips, whose texts, languages and speakers the talker has.

        Raises:
            ConfigError: a change names no field, or is impossible.
        """
        mine = {p: x for p, x in changes.items() if p.startswith("tokenizer.")}
        flow = changes.get(FAMILY) == "25 Hz"
        family = self.tokenizer_25hz if flow else self.tokenizer
        tokenizer = changed({"tokenizer": family}, mine)["tokenizer"]
        model = (self.talker_25hz if flow else self.talker)(
            tokenizer,
            text_ids(self.vocabulary(records)),
            sorted({r.language for r in records}),
            sorted({r.speaker for r in records}),
        )
        base = Recipe(
            tokenizer,
            self.stages_25hz if flow else self.stages,
            self.crop_seconds,
            model,
            self.talker_options,
            self.talker_batches,
            _for_model(self.talker_trainer, model),
        )
        recipe = changed(base, {p: x for p, x in changes.items() if p not in mine and p != FAMILY})
        rate = recipe.frame_rate
        return replace(recipe, talker_batches=replace(recipe.talker_batches, frame_rate=rate))

    def talker_25hz(
        self,
        tokenizer: Tokenizer25HzConfig,
        text: TextIds,
        languages: Sequence[str],
        speakers: Sequence[str],
    ) -> TTSConfig:
        """The talker of the scale with one codebook and no code predictor."""
        entries = tokenizer.encoder.entries
        stand_in = changed(self.tokenizer, {
            "encoder.quantizer.entries": entries, "decoder.quantizer.entries": entries,
        })  # fmt: skip
        config = self.talker(stand_in, text, languages, speakers)
        talker = replace(config.talker, code_predictor=None, codebooks=1, positions_per_second=25)
        return replace(config, tokenizer_type=TOKENIZER_25HZ, talker=talker)


def _for_model(trainer: TrainerConfig, model: TTSConfig) -> TrainerConfig:
    """The trainer without an optimizer for a code predictor that the talker has not."""
    if model.talker.code_predictor is not None:
        return trainer
    rules = {name: rule for name, rule in trainer.optimizers.items() if name != "code_predictor"}
    return replace(trainer, optimizers=rules)


def preset_talker(
    tokenizer: Tokenizer12HzConfig, text: TextIds, languages: Sequence[str], speakers: Sequence[str]
) -> TTSConfig:
    """The nano talker with preset speakers instead of a speaker encoder."""
    config = nano_talker(tokenizer, text, tuple(languages), tuple(speakers))
    return replace(config, model_type="custom_voice", speaker_encoder=None)


def quiet(trainer: TrainerConfig, steps: int, **settings: object) -> TrainerConfig:
    """A trainer of a fixed number of steps, without TensorBoard, progress bars or a time limit."""
    options = {"keep": 1, "tensorboard": False, "progress": False, **settings}
    return dataclasses.replace(trainer, steps=steps, **options)


def stages_25hz(preset: str, steps: int, **settings: object) -> tuple[Stage25Hz, ...]:
    """All stages of a preset, `steps` each."""
    recipe = PRESETS[preset]()
    return tuple(
        Stage25Hz(name, recipe, quiet(TRAINERS[name], steps, **settings)) for name in STAGES
    )


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
