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
    """Settings of the codebook updates.

    Attributes:
        decay: decay of the moving averages per optimizer step (0.99: VQ-VAE, EnCodec, and the 25 Hz
            tokenizer of this family).
        start_iterations: iterations of k-means on the first batch (EnCodec starts by k-means too;
            the means hardly move after ten).
        dead: an entry whose usage falls below this part of the mean usage is replaced by a vector
            of the batch (EnCodec replaces unused entries; a relative limit is independent of
            batch size and number of entries).
        dropout: probability that a row uses only its first n codebooks, n uniform (DAC,
            arXiv:2306.06546: 0.5).
        bypass: probability that a row skips the quantizer (Mimi, arXiv:2410.00037, quantizes
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
class SpectrumConfig:
    """Spectra that an auxiliary head predicts from the quantized vectors, in training only.

    A vector of 80 ms has to hold several short spectra. The gradient through a decoder of samples
    is weak: after minutes of training it has fitted a smooth envelope only. That through a head is
    direct.

    Attributes:
        window: samples of one spectrum, one every window / 4, which ends where the next quarter
            begins, so that a causal encoder has seen all of it. A quarter must divide a code frame.
        mels: bins of one spectrum.
        top: Hz, upper edge of the bins; None for the whole band.
        loudness: the bins are Bark bands of loudness (`dsp.loudness`) instead of log-mel bands.
        weight: weight of its loss relative to the other spectra.
    """

    window: int = 960
    mels: int = 80
    top: float | None = None
    loudness: bool = False
    weight: float = 1.0

    def steps(self, samples_per_frame: int) -> int:
        """Spectra of one code frame.

        Raises:
            ConfigError: their number is not an integer.
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
    teacher is published for this family; 1 is a start. `envelope` (the spectrum
    loss) and `loudness` (`dsp.loudness.disturbance`; 0 turns it off) are this project's own.
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
    """Losses, stage and augmentations of tokenizer training.

    Attributes:
        stage: "joint" trains everything at once, as the published codecs do. "codes" trains the
            encoder and the codebooks, on spectra and the teacher, without decoding, at a fraction
            of the cost. "decoder" then trains the decoder, and discriminators if there
            are any, on the codes as they are.
        weights: weights of the losses.
        spectra: targets that a head predicts from the quantized vectors, of different windows.
        random_eq: dB, largest gain of any octave in the random equalisation of a row, which makes
            codes robust to rooms and microphones; 0 for none.
        noise_floor: root mean square of the white noise that counts as silence in all spectra.
            Without it, log spectra weigh inaudible bands and pauses like speech.
        decoded_frames: code frames of each row that are decoded and compared, a random crop; None
            for all. Decoding costs most of a step, while the encoder needs long rows to learn
            its attention.
        balance: treat the weights of `mel`, `loudness`, `feature` and `adversarial` as shares of
            the gradient that reaches the samples, by moving averages of its norms with this decay
            (EnCodec, arXiv:2210.13438, section 3.4: 0.999, and there mel 1, feature 3, adversarial
            3, commitment 1); None for plain weights.
        mel_scales: window (samples), mel bins and, for a part of the band, its upper edge in Hz
            (the default: DAC, arXiv:2306.06546, section 3.4).
        codebook: settings of the codebooks.
        discriminator: sizes; None trains on reconstruction alone.
        discriminator_start: optimizer steps before the discriminators start; their cost is saved
            until then.
        generator_start: optimizer steps before the generator uses their gradients. Gradients of
            untrained discriminators are noise, which balancing would scale like all others.
        teacher_width: width D' of the features in `batch["teacher"]` that the semantic codebooks
            learn (WavLM in the report of Qwen3-TTS, section on the 12 Hz tokenizer; any frame-level
            feature will do); None for no teacher.
    """

    stage: Stage = "joint"
    weights: LossWeights = LossWeights()
    spectra: tuple[SpectrumConfig, ...] = ()
    random_eq: float = 0.0
    noise_floor: float = 0.0
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
        if self.stage == "codes" and not self.spectra and self.teacher_width is None:
            raise ConfigError(
                "codes learn from spectra or a teacher; set TokenizerTraining.spectra."
            )
        if len({e.window for e in self.spectra}) < len(self.spectra):
            raise ConfigError(
                "two of TokenizerTraining.spectra have the same window, by which their losses "
                "are named; change one."
            )
        if self.decoded_frames is not None and self.decoded_frames < 1:
            raise ConfigError(f"decoded_frames must be at least 1, not {self.decoded_frames}.")
        for name in ("noise_floor", "random_eq"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, not {getattr(self, name)}.")

    @property
    def learns_codes(self) -> bool:
        """Whether encoder and codebooks are trained."""
        return self.stage != "decoder"

    @property
    def decodes(self) -> bool:
        """Whether samples are decoded and compared."""
        return self.stage != "codes"
