"""Library of the ablations: scale nano, models of the size of the shipped voice."""

from __future__ import annotations

import dataclasses

from experiments import command
from experiments.nano.talker_recipe import (
    NANO_BATCH_POSITIONS,
    NANO_MERGES,
    NANO_POSITIONS,
    NANO_TALKER_TRAINER,
)
from experiments.nano.tokenizer_recipe import (
    NANO_TOKENIZER_FRAMES,
    NANO_TOKENIZER_ROWS,
    NANO_TOKENIZER_TRAINER,
    NANO_TOKENIZER_TRAINING,
    nano_tokenizer,
)
from experiments.runner.recipe import Stage
from experiments.runner.scale import (
    NANO_TALKER_OPTIONS,
    PRESET_MIX,
    Scale,
    preset_talker,
    quiet,
    stages_25hz,
)
from experiments.train.recipe_25hz import PRESETS
from qtts_jax.data import TalkerBatchConfig

# At the steps a second of the shipped voice's sessions (experiments/nano/README.md): 14 minutes for
# the codes, 30 for the decoder, 30 for the talker.
NANO = Scale(
    name="nano",
    tokenizer=nano_tokenizer(),
    stages=(
        Stage(
            NANO_TOKENIZER_TRAINING["codes"],
            quiet(NANO_TOKENIZER_TRAINER["codes"], 40_000),
            NANO_TOKENIZER_ROWS["codes"],
        ),
        Stage(
            NANO_TOKENIZER_TRAINING["decoder"],
            quiet(NANO_TOKENIZER_TRAINER["decoder"], 40_000),
            NANO_TOKENIZER_ROWS["decoder"],
        ),
    ),
    tokenizer_25hz=PRESETS["nano"]().tokenizer,
    stages_25hz=stages_25hz("nano", 20_000),
    crop_seconds=NANO_TOKENIZER_FRAMES / 12.5,
    talker=preset_talker,
    talker_options=NANO_TALKER_OPTIONS,
    talker_batches=TalkerBatchConfig(
        mix=PRESET_MIX,
        positions=NANO_POSITIONS,
        batch_positions=NANO_BATCH_POSITIONS,
        batches_per_bucket_run=NANO_TALKER_TRAINER.steps_per_call,
    ),
    talker_trainer=quiet(
        dataclasses.replace(
            NANO_TALKER_TRAINER,
            optimizers={
                name: rule
                for name, rule in NANO_TALKER_TRAINER.optimizers.items()
                if name != "speaker_encoder"
            },
        ),
        60_000,
    ),
    merges=NANO_MERGES,
    judges=("stoi", "pesq", "asr", "speaker"),
    test_clips=100,
    seconds=20.0,
)


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
