"""Library of the ablations: scale small, the sizes of the shipped voice and the steps of a minute.

Short clips of a few speakers with word times (`experiments/README.md` has the command), so that a
talker learns to read within the steps. The tokenizer is trained in one stage without
discriminators: its spectra are smoother than those of the shipped voice. The semantic teacher is
codebook 0 of the shipped tokenizer (`speech.py`).
"""

from __future__ import annotations

from dataclasses import replace

from experiments import command
from experiments.nano.talker_recipe import (
    NANO_MERGES,
)
from experiments.nano.tokenizer_recipe import NANO_TOKENIZER_FRAMES, nano_tokenizer
from experiments.runner.recipe import Stage, Stage25Hz
from experiments.runner.scale import (
    NANO_TALKER_OPTIONS,
    PRESET_MIX,
    Scale,
    preset_talker,
    quiet,
    stages_25hz,
)
from experiments.runner.speech import TEACHER_WIDTH
from experiments.train.recipe_25hz import PRESETS
from qtts_jax.data import TalkerBatchConfig
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.tokenizer.config import CodebookTraining, SpectrumConfig, TokenizerTraining
from qtts_jax.training.trainer import TrainerConfig

TOKENIZER_STEPS, TALKER_STEPS, STAGE_STEPS_25HZ = 2000, 3000, 1500
CODEBOOKS = 16


def _rule(steps: int, rate: float, **settings: float) -> OptimizerConfig:
    """AdamW whose rate falls along a line over the whole run."""
    return OptimizerConfig(
        rate, warmup_steps=100, decay="linear", total_steps=steps, final_ratio=0.02, **settings
    )


def _trainer(steps: int, optimizers: dict[str, OptimizerConfig], average: float) -> TrainerConfig:
    return quiet(
        TrainerConfig(steps=steps, optimizers=optimizers, average_decay=average, log_every=50,
                      save_every=steps),
        steps,
    )  # fmt: skip


def _stages_25hz() -> tuple[Stage25Hz, ...]:
    """The four stages of the preset nano, the vocoder without discriminators."""
    rule = _rule(STAGE_STEPS_25HZ, 1e-3, b2=0.98)
    return tuple(
        replace(
            stage,
            settings=replace(
                stage.settings,
                vocoder=replace(stage.settings.vocoder, discriminator=None),
                # The longest clip of the recordings.
                seconds=8.0,
            ),
            trainer=replace(
                stage.trainer,
                optimizers={
                    name: rule for name in stage.trainer.optimizers if name != "discriminator"
                },
                save_every=STAGE_STEPS_25HZ,
            ),
        )
        for stage in stages_25hz("nano", STAGE_STEPS_25HZ)
    )


SMALL = Scale(
    name="small",
    tokenizer=nano_tokenizer(CODEBOOKS),
    stages=(
        Stage(
            TokenizerTraining(
                stage="joint",
                spectra=(SpectrumConfig(), SpectrumConfig(window=1920, mels=64, top=2000.0)),
                noise_floor=5e-4,
                decoded_frames=8,
                mel_scales=((512, 40), (1024, 80), (2048, 80)),
                balance=None,
                codebook=CodebookTraining(dropout=0.0),
                discriminator=None,
                teacher_width=TEACHER_WIDTH,
            ),
            _trainer(
                TOKENIZER_STEPS,
                {"generator": _rule(TOKENIZER_STEPS, 1e-3, b1=0.9, b2=0.99, clip_norm=10.0)},
                # The decay of the codebooks' averages: slower averaged weights would not fit them.
                average=0.99,
            ),
            rows=24,
        ),
    ),
    tokenizer_25hz=PRESETS["nano"]().tokenizer,
    stages_25hz=_stages_25hz(),
    crop_seconds=NANO_TOKENIZER_FRAMES / 12.5,
    talker=preset_talker,
    talker_options=NANO_TALKER_OPTIONS,
    # Clips of one sentence at 12.5 Hz, and those of twice as many frames.
    talker_batches=TalkerBatchConfig(mix=PRESET_MIX, positions=(112, 256), batch_positions=4096),
    talker_trainer=_trainer(
        TALKER_STEPS,
        {
            name: _rule(TALKER_STEPS, 1e-3, b2=0.98, weight_decay=0.05)
            for name in ("talker", "code_predictor")
        },
        average=0.99,
    ),
    merges=NANO_MERGES,
    judges=("stoi", "pesq", "asr", "speaker"),
    test_clips=48,
    seconds=8.0,
    own_teacher=True,
)


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
