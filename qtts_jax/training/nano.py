"""The small models that this repository trains and carries, as data: sizes and hyperparameters."""

from __future__ import annotations

from dataclasses import replace

from qtts_jax.config import TransformerConfig
from qtts_jax.config_12hz import (
    Decoder12HzConfig,
    Encoder12HzConfig,
    QuantizerConfig,
    Tokenizer12HzConfig,
)
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.tokenizer_config import (
    CodebookTraining,
    DiscriminatorConfig,
    LossWeights,
    TokenizerTraining,
)
from qtts_jax.training.trainer import TrainerConfig

SAMPLE_RATE = 24000
# Width of the frame-level features of the teacher, the encoder of Whisper base.
TEACHER_WIDTH = 512


def nano_tokenizer(
    codebooks: int = 16, entries: int = 2048, code_width: int = 32
) -> Tokenizer12HzConfig:
    """A 12.5 Hz tokenizer with the released strides at a thirtieth of the released size.

    6.1 M parameters at the defaults, 2.2 M of them books; 2.2 GFLOP for a second of audio, encoded
    and decoded.

    Args:
        codebooks: per frame; 16 books of 2048 entries are 2200 bit/s, and so are 22 of 256.
        entries: per codebook.
        code_width: width of a codebook row. Both halves store every book, so at 16 x 2048 each
            unit of width costs 65,536 parameters.
    """
    width, head_dim = 160, 32
    encoder = TransformerConfig(
        width=width,
        layers=2,
        heads=width // head_dim,
        kv_heads=width // head_dim,
        head_dim=head_dim,
        ffn_width=2 * width,
        norm_eps=1e-5,
        rope_theta=1e4,
        max_positions=8000,
        norm="layer",
        ffn="gelu",
        layer_scale=0.01,
        window=250,
    )
    decoder = TransformerConfig(
        width=width,
        layers=2,
        heads=width // head_dim,
        kv_heads=width // head_dim,
        head_dim=head_dim,
        ffn_width=2 * width,
        norm_eps=1e-5,
        rope_theta=1e4,
        max_positions=8000,
        layer_scale=0.01,
        window=72,
    )
    return Tokenizer12HzConfig(
        encoder=Encoder12HzConfig(
            channels=1,
            filters=16,
            kernel=7,
            last_kernel=3,
            residual_kernel=3,
            residual_layers=1,
            dilation_growth=2,
            compress=2,
            ratios=(4, 5, 6, 8),
            downsample=2,
            transformer=encoder,
            quantizer=QuantizerConfig(
                books=codebooks, semantic=1, entries=entries, width=code_width, model_width=width
            ),
            sample_rate=SAMPLE_RATE,
        ),
        decoder=Decoder12HzConfig(
            # The official decoder builds its books at half the width of its projections.
            quantizer=QuantizerConfig(
                books=codebooks,
                semantic=1,
                entries=entries,
                width=code_width,
                model_width=2 * code_width,
            ),
            transformer=decoder,
            latent_width=width,
            upsampling_ratios=(2, 2),
            decoder_width=256,
            upsample_rates=(8, 5, 4, 3),
        ),
        codebooks=codebooks,
        input_sample_rate=SAMPLE_RATE,
        output_sample_rate=SAMPLE_RATE,
    )


# A step hears 48 rows of 2.56 s; the discriminators judge 0.96 s of each.
NANO_TOKENIZER_ROWS, NANO_TOKENIZER_FRAMES = 48, 32

NANO_TOKENIZER_TRAINING = TokenizerTraining(
    # Shares of the gradient. EnCodec, which is after the opinion of listeners, gives the spectra
    # 1 against 3 and 3; here they weigh more, because the goals are PESQ, STOI and word errors.
    balance=0.999,
    weights=LossWeights(mel=2.0, feature=2.0, adversarial=1.0, commitment=1.0, teacher=1.0),
    # The talker always gives all books, so fewer rows than DAC's half go without some.
    codebook=CodebookTraining(dropout=0.25),
    # A quarter of the published parameters and of their cost: 80 GFLOP for a second of audio,
    # forward and backward, where the tokenizer takes 7.
    discriminator=DiscriminatorConfig(
        period_channels=(16, 64, 256, 512, 512), spectrum_channels=16
    ),
    discriminator_frames=12,
    discriminator_start=2000,
    teacher_width=TEACHER_WIDTH,
)

_STEPS = 20_000
# Betas and clipping are those of DAC's published training, whose constant rate of 1e-4 is for
# 250,000 steps; this run has minutes, so it has a higher rate with a cosine.
_ADAM = OptimizerConfig(
    5e-4,
    warmup_steps=500,
    decay="cosine",
    total_steps=_STEPS,
    b1=0.8,
    b2=0.99,
    weight_decay=0.01,
    clip_norm=1000.0,
)
NANO_TOKENIZER_TRAINER = TrainerConfig(
    steps=_STEPS,
    optimizers={
        "generator": _ADAM,
        "discriminator": replace(_ADAM, learning_rate=3e-4, clip_norm=10.0),
    },
    # The pace of the codebooks: a slower average would no longer fit them.
    average_decay=0.99,
)
