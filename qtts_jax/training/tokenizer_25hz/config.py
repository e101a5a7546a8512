"""Hyperparameters of the training of the 25 Hz tokenizer, each with the source of its value."""

from __future__ import annotations

from dataclasses import dataclass, field

from qtts_jax.configs.tokenizer_25hz import (
    ENCODER_HOP,
    ENCODER_SAMPLE_RATE,
    Tokenizer25HzConfig,
)
from qtts_jax.errors import ConfigError
from qtts_jax.training.tokenizer.config import CodebookTraining


@dataclass(frozen=True)
class HeadsConfig:
    """Sizes of the heads of encoder training, which inference does not have.

    Attributes:
        vocab_size: text ids, the end of the text among them (`data.transcribed_batches`).
        text_width, text_heads, text_layers: of the text decoder (Whisper base: 512, 8, 6).
        mel_channels, mel_layers: of the convolutional mel decoder.
    """

    vocab_size: int
    text_width: int = 512
    text_heads: int = 8
    text_layers: int = 6
    mel_channels: int = 512
    mel_layers: int = 4

    def __post_init__(self) -> None:
        if self.text_width % self.text_heads or self.text_width % 2:
            raise ConfigError(
                f"text_width is {self.text_width}; it must be an even multiple of text_heads "
                f"({self.text_heads})."
            )


@dataclass(frozen=True)
class EncoderTraining:
    """Losses of encoder training.

    The report of Qwen3-TTS (arXiv:2601.15621, section on the 25 Hz tokenizer) trains in two stages:
    speech recognition through the codebook, then with a mel decoder beside it. It gives no weights;
    1 is a start.

    Attributes:
        asr: weight of the cross entropy of the text.
        mel: weight of the mel loss; 0 (the first stage) leaves the mel decoder out.
        commitment: weight of the commitment loss (1 in the official encoder's quantizer).
        codebook: moving averages; dropout and bypass do not exist with a single codebook.
    """

    asr: float = 1.0
    mel: float = 0.0
    commitment: float = 1.0
    codebook: CodebookTraining = field(default_factory=lambda: CodebookTraining(dropout=0.0))

    def __post_init__(self) -> None:
        for name in ("asr", "mel", "commitment"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"EncoderTraining.{name} must be 0 or more, not {getattr(self, name)}."
                )
        if self.codebook.dropout or self.codebook.bypass:
            raise ConfigError(
                "a single codebook can be neither dropped nor bypassed; set dropout and bypass of "
                "CodebookTraining to 0."
            )


@dataclass(frozen=True)
class FlowTraining:
    """Settings of the training of the flow-matching decoder.

    Attributes:
        drop_conditions: probability that a row gets no conditions, for guidance without a
            classifier (Ho & Salimans 2022, arXiv:2207.12598; F5-TTS, arXiv:2410.06885, drops all
            conditions of 0.2 of its rows). Code, x-vector and reference go together, since that is
            what inference contrasts (`Flow.condition`).
    """

    drop_conditions: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.drop_conditions < 1:
            raise ConfigError(
                "FlowTraining.drop_conditions must be 0 or more and below 1, not "
                f"{self.drop_conditions}."
            )


def check_trainable_25hz(config: Tokenizer25HzConfig) -> None:
    """Check that the halves agree, and that mel frames are those of the reference mel (10 ms).

    Raises:
        ConfigError: they do not.
    """
    fault = config.inconsistency()
    if fault is not None:
        raise ConfigError(
            f"a 25 Hz tokenizer cannot be trained when {fault}; change encoder_config or "
            "decoder_config."
        )
    hop, frame = config.output_sample_rate * ENCODER_HOP, config.decoder.vocoder.samples_per_frame
    if frame * ENCODER_SAMPLE_RATE != hop:
        raise ConfigError(
            f"the vocoder makes {frame} samples of {config.output_sample_rate} Hz of a mel frame, "
            f"which is not 10 ms; change upsample_rates and repeats of the decoder."
        )
    if config.encoder.window % 2:
        raise ConfigError(
            f"encoder_config.n_window is {config.encoder.window}; encoder training averages pairs "
            "of steps, so it must be even."
        )
