"""Library of the ablations: scale tiny, a minute a run on two cores."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace

from experiments import command
from experiments.nano.text_vocabulary import TextIds
from experiments.runner.recipe import Stage, Stage25Hz, changed, codebooks
from experiments.runner.scale import PRESET_MIX, Scale, preset_talker, stages_25hz
from experiments.train.recipe_25hz import PRESETS
from qtts_jax.configs.presets import tiny_tokenizer, tokenizer_12hz
from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.data import TalkerBatchConfig
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.tokenizer.config import CodebookTraining, SpectrumConfig, TokenizerTraining
from qtts_jax.training.trainer_config import TrainerConfig


def _tiny_talker(
    tokenizer: Tokenizer12HzConfig, text: TextIds, languages: Sequence[str], speakers: Sequence[str]
) -> TTSConfig:
    """A talker of some hundred thousand parameters."""
    config = preset_talker(tokenizer, text, languages, speakers)
    talker = config.talker
    stack = replace(
        talker.transformer, width=96, layers=2, heads=3, kv_heads=3, head_dim=32, ffn_width=192
    )
    assert talker.code_predictor is not None
    inner = replace(
        talker.code_predictor.transformer,
        width=64, layers=3, heads=2, kv_heads=2, head_dim=32, ffn_width=128,
    )  # fmt: skip
    talker = replace(
        talker,
        transformer=stack,
        code_predictor=replace(talker.code_predictor, transformer=inner),
        text_width=64,
        mrope_section=(6, 5, 5),
    )
    return replace(config, talker=talker)


def _tiny_tokenizer() -> Tokenizer12HzConfig:
    """12.5 Hz, 16 codebooks of 64 entries: 1200 bit/s."""
    config = changed(tiny_tokenizer(tokenizer_12hz()), {
        "encoder.quantizer.entries": 64, "decoder.quantizer.entries": 64,
        "encoder.quantizer.width": 16, "encoder.filters": 4, "decoder.decoder_width": 32,
        "encoder.transformer.layers": 1, "decoder.transformer.layers": 1,
    })  # fmt: skip
    return changed({"tokenizer": config}, codebooks(16))["tokenizer"]


def _tiny_stages_25hz() -> tuple[Stage25Hz, ...]:
    """Short stages without discriminators, as the other tokenizer of the scale."""
    quick = OptimizerConfig(2e-3, warmup_steps=20, b2=0.98)
    return tuple(
        replace(
            stage,
            settings=replace(
                stage.settings, vocoder=replace(stage.settings.vocoder, discriminator=None)
            ),
            trainer=replace(
                stage.trainer,
                optimizers={
                    name: quick for name in stage.trainer.optimizers if name != "discriminator"
                },
            ),
        )
        for stage in stages_25hz("tiny", 120, average_decay=0.95, log_every=10, save_every=50)
    )


_TINY_RULE = OptimizerConfig(2e-3, warmup_steps=20, b1=0.8, b2=0.99, clip_norm=10.0)
_TINY_TRAINER = TrainerConfig(
    steps=120,
    optimizers={"generator": _TINY_RULE},
    average_decay=0.95,
    log_every=10,
    save_every=50,
    keep=1,
    tensorboard=False,
    progress=False,
)
TINY = Scale(
    name="tiny",
    tokenizer=_tiny_tokenizer(),
    stages=(
        Stage(
            TokenizerTraining(
                spectra=(SpectrumConfig(),),
                noise_floor=5e-4,
                decoded_frames=4,
                mel_scales=((256, 40), (1024, 80)),
                balance=None,
                codebook=CodebookTraining(dropout=0.0),
                discriminator=None,
                teacher_width=64,
            ),
            _TINY_TRAINER,
            rows=4,
        ),
    ),
    tokenizer_25hz=PRESETS["tiny"]().tokenizer,
    stages_25hz=_tiny_stages_25hz(),
    crop_seconds=0.96,
    talker=_tiny_talker,
    talker_options={
        "dtype": "float32",
        "predictor_weight": 3.0,
        "predictor_frames": 8,
        "alignment_weight": 1.0,
        "code_noise": 0.3,
    },
    talker_batches=TalkerBatchConfig(mix=PRESET_MIX, positions=(192,), batch_positions=1536),
    talker_trainer=dataclasses.replace(
        _TINY_TRAINER,
        steps=80,
        optimizers={
            name: OptimizerConfig(3e-3, warmup_steps=20, b2=0.98)
            for name in ("talker", "code_predictor")
        },
    ),
    merges=128,
    judges=("stoi", "pesq"),
    test_clips=12,
    seconds=5.0,
    own_speech=True,
)


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
