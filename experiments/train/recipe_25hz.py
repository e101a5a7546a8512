"""Library of 25 Hz tokenizer training: sizes and settings by preset, optimizers by stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from experiments import command
from qtts_jax.configs.presets import tiny_tokenizer_25hz, tokenizer_25hz
from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
from qtts_jax.data.transcribed_batches import BYTE_VOCABULARY
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.tokenizer.config import (
    DiscriminatorConfig,
    LossWeights,
    TokenizerTraining,
)
from qtts_jax.training.tokenizer_25hz.config import EncoderTraining, FlowTraining, HeadsConfig
from qtts_jax.training.trainer_config import TrainerConfig

Stage = Literal["encoder", "mel", "flow", "vocoder"]
STAGES: tuple[Stage, ...] = ("encoder", "mel", "flow", "vocoder")


@dataclass(frozen=True)
class Recipe25Hz:
    """Sizes and settings of a preset.

    Attributes:
        tokenizer: sizes; `--config` replaces them.
        heads: of encoder training.
        encoder: settings by stage.
        flow, vocoder: settings of these stages.
        rows: batch size by stage.
        seconds: longest clip of encoder training.
        codes: crop of the flow; reference_frames: its longest reference (10 ms each).
        vocoder_frames: crop of the vocoder.
    """

    tokenizer: Tokenizer25HzConfig
    heads: HeadsConfig
    vocoder: TokenizerTraining
    rows: dict[Stage, int]
    encoder: EncoderTraining = EncoderTraining()  # noqa: RUF009 (frozen)
    flow: FlowTraining = FlowTraining()  # noqa: RUF009 (frozen)
    seconds: float = 15.0
    codes: int = 75
    reference_frames: int = 300
    vocoder_frames: int = 64

    def encoder_training(self, stage: Stage) -> EncoderTraining:
        """The losses of "encoder" or "mel"."""
        return replace(self.encoder, mel=1.0) if stage == "mel" else self.encoder


# Amplitude of added white noise, -66 dB of full scale: the level of pauses in a good recording.
_VOCODER = TokenizerTraining(
    stage="decoder",
    weights=LossWeights(mel=3.0, feature=2.0, adversarial=1.0),
    noise_floor=5e-4,
    balance=0.99,
    discriminator=DiscriminatorConfig(),
    discriminator_start=1500,
    generator_start=2500,
)


def _released() -> Recipe25Hz:
    return Recipe25Hz(
        tokenizer_25hz(),
        HeadsConfig(BYTE_VOCABULARY),
        _VOCODER,
        {"encoder": 16, "mel": 16, "flow": 16, "vocoder": 16},
    )


def _nano() -> Recipe25Hz:
    """About 11 M parameters, 1,024 codes: the scale of the shipped voice."""
    config = tokenizer_25hz()
    decoder = config.decoder
    reference = replace(
        decoder.dit.reference_encoder,
        embedding_dim=64,
        channels=(64, 64, 64, 64, 192),
        attention_channels=32,
        se_channels=32,
    )
    dit = replace(
        decoder.dit,
        width=192,
        layers=8,
        heads=6,
        head_dim=32,
        code_width=128,
        code_entries=1024,
        look_ahead_layers=(4,),
        look_back_layers=(0, 7),
        reference_encoder=reference,
    )
    return Recipe25Hz(
        replace(
            config,
            encoder=replace(
                config.encoder,
                n_mels=80,
                width=192,
                heads=6,
                layers=8,
                quantizer_layer=4,
                entries=1024,
                codebook_width=64,
                output_width=192,
            ),
            decoder=replace(decoder, dit=dit, vocoder=replace(decoder.vocoder, width=256)),
        ),
        HeadsConfig(BYTE_VOCABULARY, 192, 6, 4, 192, 3),
        replace(
            _VOCODER,
            discriminator=DiscriminatorConfig(
                period_channels=(16, 32, 128, 192, 192),
                windows=(2048, 512, 128),
                spectrum_channels=16,
            ),
        ),
        {"encoder": 16, "mel": 16, "flow": 16, "vocoder": 16},
    )


def _whisper_base() -> Recipe25Hz:
    """nano with an encoder of the sizes of Whisper base (20 M parameters), for `--whisper`.

    The codebook is as wide as the encoder, as published, so that nothing random stands between
    Whisper's layers.
    """
    nano = _nano()
    encoder = replace(
        nano.tokenizer.encoder,
        width=512,
        heads=8,
        layers=6,
        quantizer_layer=3,
        codebook_width=512,
        output_width=512,
    )
    return replace(nano, tokenizer=replace(nano.tokenizer, encoder=encoder))


def _tiny() -> Recipe25Hz:
    """A few hundred thousand parameters that train on a CPU, to try the commands."""
    config = tiny_tokenizer_25hz(tokenizer_25hz())
    decoder = config.decoder
    vocoder = replace(
        decoder.vocoder,
        width=64,
        kernel_sizes=(3, 7),
        dilations=((1, 3, 5),) * 2,
        upsample_rates=(5, 4, 4, 3),
        upsample_kernels=(11, 8, 8, 7),
    )
    dit = replace(decoder.dit, width=64, heads=4, code_width=32, code_entries=256)
    return Recipe25Hz(
        replace(
            config,
            encoder=replace(
                config.encoder, n_mels=80, width=64, heads=4, entries=256, codebook_width=16
            ),
            decoder=replace(decoder, dit=dit, vocoder=vocoder),
        ),
        HeadsConfig(BYTE_VOCABULARY, 64, 4, 2, 64, 2),
        replace(
            _VOCODER,
            mel_scales=((128, 20), (512, 40), (1024, 80)),
            discriminator=DiscriminatorConfig((2, 3), (8, 16, 16), (512,), 8),
            discriminator_start=200,
            generator_start=300,
        ),
        {"encoder": 8, "mel": 8, "flow": 8, "vocoder": 4},
        seconds=8.0,
        codes=32,
        reference_frames=128,
        vocoder_frames=32,
    )


PRESETS: dict[str, Callable[[], Recipe25Hz]] = {
    "tiny": _tiny,
    "nano": _nano,
    "whisper-base": _whisper_base,
    "released": _released,
}

# Only an upper bound: a run ends by its time limit, with a decay of all rates to 0.
_STEPS = 1_000_000
_ADAM = OptimizerConfig(5e-4, warmup_steps=200, b1=0.9, b2=0.98, weight_decay=0.01, clip_norm=1.0)
_GAN = replace(_ADAM, b1=0.8, b2=0.99, clip_norm=1000.0)
_ENCODER_TRAINER = TrainerConfig(
    steps=_STEPS,
    optimizers={"encoder": _ADAM, "heads": _ADAM},
    # The decay of the codebook's averages: slower averaged weights would no longer fit them.
    average_decay=0.99,
    log_every=50,
    save_every=2000,
    divergence_margin=10.0,
)
TRAINERS: dict[Stage, TrainerConfig] = {
    "encoder": _ENCODER_TRAINER,
    "mel": _ENCODER_TRAINER,
    "flow": replace(
        _ENCODER_TRAINER,
        optimizers={"flow": _ADAM},
        average_decay=0.999,
        # The loss of a batch depends on the times that its rows draw.
        divergence_margin=None,
    ),
    "vocoder": replace(
        _ENCODER_TRAINER,
        optimizers={"vocoder": _GAN, "discriminator": replace(_GAN, clip_norm=10.0)},
        average_decay=0.999,
        # The loss follows the discriminators, so it is no divergence signal.
        divergence_margin=None,
    ),
}


if __name__ == "__main__":
    raise SystemExit(
        command.exit_status_of_library(
            __file__, "experiments.train.tokenizer_25hz", "experiments.run"
        )
    )
