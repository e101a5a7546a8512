"""Library of the ablations: scale small, models of the shipped voice's size, minutes a run.

For short clips of a few speakers with word times (`experiments/README.md` has the command that
makes them, and what came of it). Decoders and vocoder train without discriminators, which take most
of a step and would only begin to work in so few. The 25 Hz encoder begins as the Whisper encoder
that is the teacher of the 12 Hz tokenizers, so that both families learn from the same model.
"""

from __future__ import annotations

from dataclasses import replace

from experiments import command
from experiments.nano.talker_recipe import NANO_MERGES
from experiments.nano.tokenizer_recipe import (
    NANO_TOKENIZER_FRAMES,
    NANO_TOKENIZER_TRAINER,
    NANO_TOKENIZER_TRAINING,
    nano_tokenizer,
)
from experiments.runner.recipe import Stage, Stage25Hz, changed, codebooks
from experiments.runner.scale import (
    NANO_TALKER_OPTIONS,
    PRESET_MIX,
    Scale,
    preset_talker,
    quiet,
    stages_25hz,
)
from experiments.train.recipe_25hz import PRESETS, STAGES
from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.data import TalkerBatchConfig
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.tokenizer.config import TokenizerTraining
from qtts_jax.training.trainer_config import TrainerConfig

_STEPS_PER_CALL = 4


def _to_the_end(rule: OptimizerConfig, steps: int) -> OptimizerConfig:
    """The optimizer with a rate that falls to 2 % at the last step."""
    return replace(rule, decay="linear", total_steps=steps, final_ratio=0.02)


def _tokenizer() -> Tokenizer12HzConfig:
    """12.5 Hz, 16 codebooks of 256 entries: 1600 bit/s."""
    return changed({"tokenizer": nano_tokenizer()}, codebooks(16))["tokenizer"]


def _stage(training: TokenizerTraining, steps: int, rows: int) -> Stage:
    """A stage of the shipped tokenizer without discriminators."""
    trainer = NANO_TOKENIZER_TRAINER[training.stage]
    rule = _to_the_end(trainer.optimizers["generator"], steps)
    settings = {"optimizers": {"generator": rule}, "steps_per_call": _STEPS_PER_CALL}
    return Stage(
        replace(training, discriminator=None),
        quiet(trainer, steps, average_decay=0.99, **settings),
        rows,
    )


# Codes and flow need many: after 4,000 of each stage, 70 points more words were wrong
# (experiments/results/tokenizer_25hz_small.md).
_STEPS_25HZ = {"encoder": 12000, "mel": 6000, "flow": 20000, "vocoder": 3000}


def _stage_25hz(stage: Stage25Hz) -> Stage25Hz:
    """A stage whose rates fall to the end; without discriminators, its encoder from Whisper."""
    steps = _STEPS_25HZ[stage.name]
    settings = replace(stage.settings, vocoder=replace(stage.settings.vocoder, discriminator=None))
    rules = {
        name: _to_the_end(rule, steps)
        for name, rule in stage.trainer.optimizers.items()
        if name != "discriminator"
    }
    if "encoder" in rules:
        # What Whisper has learned would not outlive the rate of a random encoder.
        rules["encoder"] = replace(rules["encoder"], learning_rate=1e-4)
    trainer = replace(stage.trainer, steps=steps, optimizers=rules, steps_per_call=_STEPS_PER_CALL)
    return replace(stage, settings=settings, trainer=trainer, from_teacher=stage.name == STAGES[0])


TALKER_STEPS = 16000
_RULE = _to_the_end(
    OptimizerConfig(1e-3, warmup_steps=100, b2=0.98, weight_decay=0.05), TALKER_STEPS
)

SMALL = Scale(
    name="small",
    tokenizer=_tokenizer(),
    stages=(
        _stage(NANO_TOKENIZER_TRAINING["codes"], steps=4000, rows=32),
        _stage(NANO_TOKENIZER_TRAINING["decoder"], steps=4000, rows=16),
    ),
    tokenizer_25hz=PRESETS["whisper-base"]().tokenizer,
    stages_25hz=tuple(map(_stage_25hz, stages_25hz("whisper-base", max(_STEPS_25HZ.values())))),
    tokenizer_clips=6000,
    crop_seconds=NANO_TOKENIZER_FRAMES / 12.5,
    talker=preset_talker,
    talker_options=NANO_TALKER_OPTIONS,
    talker_batches=TalkerBatchConfig(
        mix=PRESET_MIX,
        positions=(96, 144, 224),
        batch_positions=4096,
        batches_per_bucket_run=_STEPS_PER_CALL,
    ),
    talker_trainer=quiet(
        TrainerConfig(
            steps=TALKER_STEPS,
            optimizers={"talker": _RULE, "code_predictor": _RULE},
            steps_per_call=_STEPS_PER_CALL,
            average_decay=0.99,
            log_every=50,
            save_every=4000,
        ),
        TALKER_STEPS,
    ),
    merges=NANO_MERGES,
    judges=("stoi", "pesq", "asr", "speaker"),
    test_clips=64,
    seconds=12.0,
)


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
