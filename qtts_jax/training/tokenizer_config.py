"""Hyperparameters of tokenizer training, each with the public source of its value."""

from __future__ import annotations

from dataclasses import dataclass

from qtts_jax.errors import ConfigError


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of the discriminators.

    Attributes:
        periods: of the multi-period discriminator; primes, so that they overlap little
            (HiFi-GAN, arXiv:2010.05646).
        period_channels: outputs of its layers; all but the last have stride 3. HiFi-GAN has
            (32, 128, 512, 1024, 1024).
        windows: samples, of the multi-scale STFT discriminator (EnCodec, arXiv:2210.13438).
        spectrum_channels: outputs of each of its layers (EnCodec: 32).
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    windows: tuple[int, ...] = (2048, 1024, 512, 256, 128)
    spectrum_channels: int = 32

    def __post_init__(self) -> None:
        if not self.periods and not self.windows:
            raise ConfigError(
                "a discriminator needs periods or windows; to train without one, set "
                "TokenizerTraining.discriminator to None."
            )


@dataclass(frozen=True)
class CodebookTraining:
    """How the entries of the codebooks follow the vectors.

    Attributes:
        decay: of the moving averages per optimizer step (0.99: VQ-VAE, EnCodec, and the 25 Hz
            tokenizer of this family).
        start_iterations: of k-means on the first batch (EnCodec starts by k-means too; the means
            hardly move after ten rounds).
        dead: an entry whose usage falls below this part of the mean usage is replaced by a vector
            of the batch (EnCodec replaces unused entries; a relative limit is independent of
            batch size and number of entries).
        dropout: how often a row of the batch uses only its first n books, n uniform (DAC,
            arXiv:2306.06546: 0.5).
        bypass: how often a row skips the quantizer altogether (Mimi, arXiv:2410.00037, quantizes
            half of the rows in training); 0 turns it off.
    """

    decay: float = 0.99
    start_iterations: int = 10
    dead: float = 0.1
    dropout: float = 0.5
    bypass: float = 0.0

    def __post_init__(self) -> None:
        for name in ("decay", "dead", "dropout", "bypass"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"CodebookTraining.{name} must lie in 0 ... 1, not {value}.")


@dataclass(frozen=True)
class LossWeights:
    """Weights of the generator's losses.

    The values are those of DAC (arXiv:2306.06546, section 3.4), whose mel loss is the one used
    here; its feature loss is a sum and not relative, so compare the `pull/` metrics before trusting
    them on another set of discriminators, or balance (`TokenizerTraining.balance`). No weight of a
    teacher is published for this family; 1 is a start.
    """

    mel: float = 15.0
    feature: float = 2.0
    adversarial: float = 1.0
    commitment: float = 0.25
    teacher: float = 1.0


@dataclass(frozen=True)
class TokenizerTraining:
    """What a tokenizer is trained on, besides its own configuration.

    Attributes:
        weights: of the losses.
        balance: treat the weights of `mel`, `feature` and `adversarial` as shares of the gradient
            that reaches the samples, by moving averages of its norms with this decay (EnCodec,
            arXiv:2210.13438, section 3.4: 0.999, and there mel 1, feature 3, adversarial 3,
            commitment 1); None for plain weights.
        mel_scales: pairs of window (samples) and mel bins (DAC, arXiv:2306.06546, section 3.4).
        codebook: of the codebooks.
        discriminator: sizes; None trains on reconstruction alone.
        discriminator_frames: code frames of each row that the discriminators judge, from a random
            place; None for all. They cost several times the tokenizer, while the tokenizer needs
            long rows to learn its attention.
        discriminator_start: optimizer steps before the discriminators start; what they would cost
            is saved until then.
        generator_start: optimizer steps before the generator hears them. Discriminators that have
            not learned anything have gradients of no meaning, which balancing would bring to the
            size of all others.
        teacher_width: width D' of the features in `batch["teacher"]` that the semantic books learn
            (WavLM in the report of Qwen3-TTS, section on the 12 Hz tokenizer; any frame-level
            feature will do); None for no teacher.
    """

    weights: LossWeights = LossWeights()
    balance: float | None = None
    mel_scales: tuple[tuple[int, int], ...] = (
        (32, 5),
        (64, 10),
        (128, 20),
        (256, 40),
        (512, 80),
        (1024, 160),
        (2048, 320),
    )
    codebook: CodebookTraining = CodebookTraining()
    discriminator: DiscriminatorConfig | None = DiscriminatorConfig()
    discriminator_frames: int | None = None
    discriminator_start: int = 0
    generator_start: int = 0
    teacher_width: int | None = None
