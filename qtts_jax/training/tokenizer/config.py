"""Hyperparameters of tokenizer training, each with the public source of its value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
class EnvelopeConfig:
    """Spectra that a small head reads from the quantized vectors; only training has it.

    A vector of 80 ms has to hold several short spectra. Their way back through a decoder of
    samples is long, and a training of minutes stays with a smooth envelope; that of a head is
    short.

    Attributes:
        window: samples of one spectrum, one every window / 4, which ends where the next quarter
            begins: what a causal encoder has heard. A quarter must divide a code frame.
        mels: bins of one spectrum.
        top: Hz, upper edge of the bins; None for the whole band.
        loudness: the bins are Bark bands and tell how loud they are (`training.loudness`), instead
            of logarithms of mel bands.
        weight: of its loss beside those of other spectra.
    """

    window: int = 960
    mels: int = 80
    top: float | None = None
    loudness: bool = False
    weight: float = 1.0

    def steps(self, samples_per_frame: int) -> int:
        """Spectra of one code frame.

        Raises:
            ConfigError: they are no whole number.
        """
        hop, rest = divmod(self.window, 4)
        if rest or samples_per_frame % hop:
            raise ConfigError(
                f"a quarter of the envelope's window of {self.window} samples must divide a code "
                f"frame of {samples_per_frame}; choose another window."
            )
        return samples_per_frame // hop


@dataclass(frozen=True)
class LossWeights:
    """Weights of the generator's losses.

    The values are those of DAC (arXiv:2306.06546, section 3.4), whose mel loss is the one used
    here; its feature loss is a sum and not relative, so compare the `pull/` metrics before trusting
    them on another set of discriminators, or balance (`TokenizerTraining.balance`). No weight of a
    teacher is published for this family; 1 is a start. The envelope loss is this project's own, and
    so is `loudness` (`training.loudness.disturbance`); 0 leaves that out.
    """

    mel: float = 15.0
    loudness: float = 0.0
    feature: float = 2.0
    adversarial: float = 1.0
    commitment: float = 0.25
    teacher: float = 1.0
    envelope: float = 10.0


Stage = Literal["joint", "codes", "decoder"]


@dataclass(frozen=True)
class TokenizerTraining:
    """What a tokenizer is trained on, besides its own configuration.

    Attributes:
        stage: "joint" trains everything at once, as the published codecs do. "codes" trains the
            encoder and the books, on the envelope and the teacher, without decoding anything: its
            steps cost a fraction. "decoder" then trains the decoder, and discriminators if there
            are any, on the codes as they are.
        weights: of the losses.
        envelopes: spectra that the quantized vectors must tell, of different windows.
        equalize: dB, most gain of any octave by which the rows of a batch are coloured at random,
            so that codes hold for other rooms and microphones; 0 for none.
        quiet: root mean square of white noise that is as good as silence in all spectra. Without
            it the logarithms weigh what nobody hears (empty bands, pauses) like speech.
        decoded_frames: code frames of each row that are decoded and judged, from a random place;
            None for all. Decoding costs most of a step, while the encoder needs long rows to learn
            its attention.
        balance: treat the weights of `mel`, `loudness`, `feature` and `adversarial` as shares of
            the gradient that reaches the samples, by moving averages of its norms with this decay
            (EnCodec, arXiv:2210.13438, section 3.4: 0.999, and there mel 1, feature 3, adversarial
            3, commitment 1); None for plain weights.
        mel_scales: window (samples), mel bins and, for a part of the band, its upper edge in Hz
            (the default: DAC, arXiv:2306.06546, section 3.4).
        codebook: of the codebooks.
        discriminator: sizes; None trains on reconstruction alone.
        discriminator_start: optimizer steps before the discriminators start; what they would cost
            is saved until then.
        generator_start: optimizer steps before the generator hears them. Discriminators that have
            not learned anything have gradients of no meaning, which balancing would bring to the
            size of all others.
        teacher_width: width D' of the features in `batch["teacher"]` that the semantic books learn
            (WavLM in the report of Qwen3-TTS, section on the 12 Hz tokenizer; any frame-level
            feature will do); None for no teacher.
    """

    stage: Stage = "joint"
    weights: LossWeights = LossWeights()
    envelopes: tuple[EnvelopeConfig, ...] = ()
    equalize: float = 0.0
    quiet: float = 0.0
    decoded_frames: int | None = None
    balance: float | None = None
    mel_scales: tuple[tuple[int, ...], ...] = (
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
    discriminator_start: int = 0
    generator_start: int = 0
    teacher_width: int | None = None

    def __post_init__(self) -> None:
        if self.stage not in ("joint", "codes", "decoder"):
            raise ConfigError(
                f"a stage of tokenizer training is joint, codes or decoder, not {self.stage!r}."
            )
        if self.stage == "codes" and not self.envelopes and self.teacher_width is None:
            raise ConfigError(
                "codes learn from an envelope or a teacher; set TokenizerTraining.envelopes."
            )
        if len({e.window for e in self.envelopes}) < len(self.envelopes):
            raise ConfigError(
                "two of TokenizerTraining.envelopes have the same window, by which their losses "
                "are named; change one."
            )
        if self.decoded_frames is not None and self.decoded_frames < 1:
            raise ConfigError(f"decoded_frames must be at least 1, not {self.decoded_frames}.")
        for name in ("quiet", "equalize"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, not {getattr(self, name)}.")

    @property
    def learns_codes(self) -> bool:
        """Encoder and books are trained."""
        return self.stage != "decoder"

    @property
    def decodes(self) -> bool:
        """Samples are made and judged."""
        return self.stage != "codes"
