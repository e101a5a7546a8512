"""Library of the ablations: scale small, models of the shipped voice's size, minutes a run.

For short clips of a few speakers with word times (`experiments/README.md` has the command that
makes them, and what came of it). The tokenizer's decoder trains without discriminators, which take
most of a step and would only begin to work in so few.
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
from experiments.runner.recipe import Stage, changed, codebooks
from experiments.runner.scale import (
    NANO_TALKER_OPTIONS,
    PRESET_MIX,
    Scale,
    preset_talker,
    quiet,
    stages_25hz,
)
from experiments.train.recipe_25hz import PRESETS
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


TALKER_STEPS = 12000
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
    tokenizer_25hz=PRESETS["nano"]().tokenizer,
    stages_25hz=stages_25hz("nano", 4000),
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
