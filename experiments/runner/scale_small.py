"""Library of the ablations: scale small, talkers of the shipped voice's size on its tokenizer.

For questions of the talker alone. Short clips of a few speakers with word times, so that a talker
learns to read within the steps; `experiments/README.md` has the command that makes them.
"""

from __future__ import annotations

from experiments import command
from experiments.nano.talker_recipe import NANO_MERGES
from experiments.runner.scale import NANO_TALKER_OPTIONS, PRESET_MIX, Scale, preset_talker, quiet
from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.data import TalkerBatchConfig
from qtts_jax.embedded import DIRECTORY
from qtts_jax.io.config_file import read_config
from qtts_jax.speech_tokenizer.base import FOLDER
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.trainer_config import TrainerConfig

STEPS = 3000
_RULE = OptimizerConfig(
    1e-3,
    warmup_steps=100,
    decay="linear",
    total_steps=STEPS,
    final_ratio=0.02,
    b2=0.98,
    weight_decay=0.05,
)

SMALL = Scale(
    name="small",
    tokenizer=Tokenizer12HzConfig.from_hf(read_config(DIRECTORY / FOLDER)),
    talker=preset_talker,
    talker_options=NANO_TALKER_OPTIONS,
    talker_batches=TalkerBatchConfig(mix=PRESET_MIX, positions=(112, 160), batch_positions=4096),
    talker_trainer=quiet(
        TrainerConfig(
            steps=STEPS,
            optimizers={"talker": _RULE, "code_predictor": _RULE},
            average_decay=0.99,
            log_every=50,
            save_every=STEPS,
        ),
        STEPS,
    ),
    merges=NANO_MERGES,
    judges=("stoi", "pesq", "asr", "speaker"),
    test_clips=48,
    seconds=8.0,
)


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
