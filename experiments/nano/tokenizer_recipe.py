"""Library of the nano recipe: sizes and hyperparameters of the tokenizer and its training."""

from __future__ import annotations

from dataclasses import replace

from experiments import command
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
from qtts_jax.training.trainer_config import TrainerConfig

SAMPLE_RATE = 24000
# Width of the frame-level features of the teacher, the encoder of Whisper base.
TEACHER_WIDTH = 512


def nano_tokenizer(
    codebooks: int = 22, entries: int = 256, code_width: int = 64
) -> Tokenizer12HzConfig:
    """A 12.5 Hz tokenizer with the released strides at a thirtieth of the released size.

    5.1 M parameters at the defaults, 0.7 M of them codebooks; 2.3 GFLOP to encode and decode a
    second of audio.

    Args:
        codebooks: per frame; 16 codebooks of 2048 entries are 2200 bit/s, and so are 22 of 256.
            The default is many small ones: a short training uses every entry, and the talker's
            tables of 22 x 256 codes are a sixth of those of 16 x 2048, too large for 30 MB.
        entries: per codebook.
        code_width: width of a codebook entry. Encoder and decoder each store every codebook.
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
            # As in the official decoder: codebooks have half the width of their projections.
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


# Batch size per stage, in rows of NANO_TOKENIZER_FRAMES frames (1.92 s).
NANO_TOKENIZER_ROWS: dict[Stage, int] = {"codes": 48, "decoder": 32, "joint": 16}
NANO_TOKENIZER_FRAMES = 24

# Amplitude of added white noise, -66 dB of full scale: the level of pauses in a good recording.
_NOISE_FLOOR = 5e-4
# Targets of the spectrum head: short windows over the whole band, and long windows below 2 kHz that
# resolve harmonics; with the first alone the pitch was less accurate
# (`experiments/results/nano_bands.md`). Both are log-mel and weigh recording noise like speech; the
# third is perceptual loudness. Its variance is nine times theirs, so a weight of 0.2 doubles it.
_SPECTRA = (
    SpectrumConfig(),
    SpectrumConfig(window=1920, mels=64, top=2000.0),
    SpectrumConfig(window=768, mels=49, top=8000.0, loudness=True, weight=0.2),
)
# Loss weights of all stages; each stage uses those of the parts that it trains.
_WEIGHTS = LossWeights(
    # Spectra share one scale, beside the teacher's cosine distance. Commitment only keeps the
    # encoder's vectors near their codebook entries.
    envelope=10.0,
    teacher=0.3,
    commitment=0.05,
    # Shares of the gradient. EnCodec, tuned for listening tests, uses 1 for the spectra and 3 and 3
    # for features and adversary; here spectra weigh more: the goals are PESQ, STOI and WER.
    mel=3.0,
    loudness=6.0,
    feature=2.0,
    adversarial=1.0,
)
# Half of the published channels of the spectrum discriminators, three of five windows, and a fifth
# of the channels of the period discriminators: the former take most of the time of a step, the
# latter most of the size of a checkpoint.
_DISCRIMINATOR = DiscriminatorConfig(
    period_channels=(16, 32, 128, 192, 192), windows=(2048, 512, 128), spectrum_channels=16
)

_CODES_TRAINING = TokenizerTraining(
    stage="codes",
    weights=_WEIGHTS,
    spectra=_SPECTRA,
    random_eq=6.0,
    noise_floor=_NOISE_FLOOR,
    # No codebook dropout: the talker always generates all codebooks.
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
    # DAC's scales and two for low frequencies: PESQ gains most from those below 1 kHz (same table).
    mel_scales=(*TokenizerTraining().mel_scales, (1024, 40, 2000), (2048, 80, 2000)),
    # Short average of gradient norms: those of the discriminators grow a hundredfold in training.
    balance=0.99,
    codebook=CodebookTraining(dropout=0.0),
    discriminator=_DISCRIMINATOR,
    # Using adversarial gradients from step 0 doubled the mel loss; discriminators were still at
    # chance after 450 steps.
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

# Only an upper bound: a run ends by its time limit, with a decay of all rates to 0.
_STEPS = 1_000_000
# Betas of DAC's published training, whose constant rate of 1e-4 is for 250,000 steps; these runs
# last minutes and need a higher rate.
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
    # One step per call leaves an H100 idle half of the time, so small is the model.
    steps_per_call=4,
    average_decay=0.999,
    log_every=50,
    save_every=2000,
    # The loss jumps when the discriminators start and when their gradients first reach the decoder,
    # and then tracks the discriminators, so it is no divergence signal.
    divergence_margin=None,
)
_CODES_TRAINER = replace(
    _DECODER_TRAINER,
    optimizers={"generator": replace(_ADAM, learning_rate=1e-3, b1=0.9, clip_norm=10.0)},
    # The decay of the codebooks' averages: slower averaged weights would no longer fit them.
    average_decay=0.99,
    # The loss falls from 110 to 1.3; 20 is what predicting the mean spectrum gives. Starting from
    # the weights of another run raises it by less than 1.
    divergence_margin=10.0,
)
NANO_TOKENIZER_TRAINER: dict[Stage, TrainerConfig] = {
    "codes": _CODES_TRAINER,
    "decoder": _DECODER_TRAINER,
    "joint": replace(_DECODER_TRAINER, average_decay=0.99),
}


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.train.tokenizer"))
