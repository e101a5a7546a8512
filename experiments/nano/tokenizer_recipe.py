"""The small models that this repository trains and carries, as data: sizes and hyperparameters."""

from __future__ import annotations

from dataclasses import replace

from qtts_jax.configs.tokenizer_12hz import (
    Decoder12HzConfig,
    Encoder12HzConfig,
    QuantizerConfig,
    Tokenizer12HzConfig,
)
from qtts_jax.configs.tts import TransformerConfig
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.tokenizer.config import (
    CodebookTraining,
    DiscriminatorConfig,
    LossWeights,
    SpectrumConfig,
    Stage,
    TokenizerTraining,
)
from qtts_jax.training.trainer import TrainerConfig

SAMPLE_RATE = 24000
# Width of the frame-level features of the teacher, the encoder of Whisper base.
TEACHER_WIDTH = 512


def nano_tokenizer(
    codebooks: int = 22, entries: int = 256, code_width: int = 64
) -> Tokenizer12HzConfig:
    """A 12.5 Hz tokenizer with the released strides at a thirtieth of the released size.

    5.1 M parameters at the defaults, 0.7 M of them books; 2.3 GFLOP for a second of audio, encoded
    and decoded.

    Args:
        codebooks: per frame; 16 books of 2048 entries are 2200 bit/s, and so are 22 of 256. The
            default has the small books: a short training fills them all, and the talker's tables
            of 22 x 256 codes are a sixth of those of 16 x 2048, which no voice of 30 MB can hold.
        entries: per codebook.
        code_width: width of a codebook row: 2.6 bits for each number of a frame. Both halves store
            every book.
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
            filters=20,
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


# Rows of 1.92 s that a step hears.
NANO_TOKENIZER_ROWS: dict[Stage, int] = {"codes": 48, "decoder": 32, "joint": 16}
NANO_TOKENIZER_FRAMES = 24

# White noise at -66 dB of full scale: what a pause of a good recording has.
_NOISE_FLOOR = 5e-4
# Short windows of the whole band, and of its low end windows that tell harmonics apart: with the
# first alone the pitch came out further off (`experiments/results/nano_bands.md`).
# Both are logarithms, to which the noise of a recording is worth as much as its speech; the third
# has what is loud. Its spectra vary nine times as much as theirs, and count twice after that.
_SPECTRA = (
    SpectrumConfig(),
    SpectrumConfig(window=1920, mels=64, top=2000.0),
    SpectrumConfig(window=768, mels=49, top=8000.0, loudness=True, weight=0.2),
)
# Of all stages; each has the losses of what it trains.
_WEIGHTS = LossWeights(
    # All spectra on one scale, the teacher's cosine beside them. Commitment only has to keep the
    # vectors from running away from their books.
    envelope=10.0,
    teacher=0.3,
    commitment=0.05,
    # Shares of the gradient. EnCodec, which is after the opinion of listeners, gives the spectra
    # 1 against 3 and 3; here they weigh more, because the goals are PESQ, STOI and word errors.
    mel=3.0,
    loudness=6.0,
    feature=2.0,
    adversarial=1.0,
)
# Half of the published channels per spectrum, three of five windows, and a fifth of the channels
# per period: the spectra are most of the cost of a step, the periods most of the size of a
# checkpoint.
_DISCRIMINATOR = DiscriminatorConfig(
    period_channels=(16, 32, 128, 192, 192), windows=(2048, 512, 128), spectrum_channels=16
)

_CODES_TRAINING = TokenizerTraining(
    stage="codes",
    weights=_WEIGHTS,
    spectra=_SPECTRA,
    random_eq=6.0,
    noise_floor=_NOISE_FLOOR,
    # The talker always gives all books.
    codebook=CodebookTraining(dropout=0.0),
    discriminator=None,
    teacher_width=TEACHER_WIDTH,
)
_DECODER_TRAINING = TokenizerTraining(
    stage="decoder",
    weights=_WEIGHTS,
    noise_floor=_NOISE_FLOOR,
    random_eq=3.0,
    decoded_frames=8,
    # The last two beside DAC's: what PESQ misses first lies below 1 kHz (the same table).
    mel_scales=(*TokenizerTraining().mel_scales, (1024, 40, 2000), (2048, 80, 2000)),
    # The norms of the discriminators' gradients grow a hundredfold while they learn, so the
    # average is a short one.
    balance=0.99,
    codebook=CodebookTraining(dropout=0.0),
    discriminator=_DISCRIMINATOR,
    # Heard from their first step on, they doubled the mel loss of a run: after 450 steps they still
    # told nothing apart.
    discriminator_start=1500,
    generator_start=2500,
)
NANO_TOKENIZER_TRAINING: dict[Stage, TokenizerTraining] = {
    "codes": _CODES_TRAINING,
    "decoder": _DECODER_TRAINING,
    "joint": replace(
        _DECODER_TRAINING,
        stage="joint",
        spectra=_SPECTRA,
        teacher_width=TEACHER_WIDTH,
    ),
}

# A bound only: pieces of the run end by the clock, the last one with a decay of all rates to 0.
_STEPS = 1_000_000
# Betas of the samples are those of DAC's published training, whose constant rate of 1e-4 is for
# 250,000 steps; this run has minutes, so it has a higher rate.
_ADAM = OptimizerConfig(
    5e-4,
    warmup_steps=200,
    b1=0.8,
    b2=0.99,
    weight_decay=0.01,
    clip_norm=1000.0,
)
_DECODER_TRAINER = TrainerConfig(
    steps=_STEPS,
    optimizers={
        "generator": _ADAM,
        "discriminator": replace(_ADAM, learning_rate=3e-4, clip_norm=10.0),
    },
    # A host asks for the steps of so small a model half as fast as an H100 does them.
    steps_per_call=4,
    average_decay=0.999,
    log_every=50,
    save_every=2000,
    # The loss jumps when the discriminators begin and when the decoder first hears them, and later
    # follows their mood: it says nothing of divergence.
    divergence_margin=None,
)
_CODES_TRAINER = replace(
    _DECODER_TRAINER,
    optimizers={"generator": replace(_ADAM, learning_rate=1e-3, b1=0.9, clip_norm=10.0)},
    # The pace of the codebooks: a slower average would no longer fit them.
    average_decay=0.99,
    # From 110 at the start the loss falls to 1.3, and to 20 where it is told no more than the mean
    # of the spectra. A run that begins with the weights of another rises by less than 1.
    divergence_margin=10.0,
)
NANO_TOKENIZER_TRAINER: dict[Stage, TrainerConfig] = {
    "codes": _CODES_TRAINER,
    "decoder": _DECODER_TRAINER,
    "joint": replace(_DECODER_TRAINER, average_decay=0.99),
}
