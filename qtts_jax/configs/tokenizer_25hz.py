"""Configuration of the 25 Hz tokenizer and the named quirks of its official code.

No checkpoint of this family was published. The official classes write all of their own fields, but
read a section without some of them, so an absent field takes the default of its class here too
(`Qwen3TTSTokenizerV1EncoderConfig` and its neighbours); the sections themselves must be there, and
a field that this package does not know is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qtts_jax.configs.sections import (
    Section,
    boolean,
    hf,
    integer,
    only,
    skipped,
    subsection,
    unread,
)
from qtts_jax.configs.tokenizer_25hz_decoder import (
    DECODER_25HZ,
    BigVGANConfig,
    Decoder25HzConfig,
    DiTConfig,
)
from qtts_jax.errors import ConfigError

__all__ = [
    "BigVGANConfig",
    "Decoder25HzConfig",
    "DiTConfig",
    "Encoder25HzConfig",
    "Quirks25Hz",
    "Tokenizer25HzConfig",
]

TOKENIZER_25HZ = "qwen3_tts_tokenizer_25hz"

# The encoder and the reference mel are built for this rate and this hop, whatever the file says.
ENCODER_SAMPLE_RATE = 16_000
ENCODER_HOP = 160
# The second convolution in front of the encoder's transformer.
CONV_STRIDE = 2


@dataclass(frozen=True)
class Encoder25HzConfig:
    """Whisper-style encoder with a vector quantizer in the middle.

    Attributes:
        n_mels: mel bins M of the 16 kHz log-mel input.
        max_positions: rows of the sinusoid table.
        width, heads, layers: width D, heads H and blocks, those after the quantizer included.
        window: hidden steps (of 20 ms) that see each other; windows do not overlap.
        quantizer_layer: blocks in front of the quantizer.
        entries, codebook_width: rows V and width d of the one codebook.
        positions_after_quantizer: add the sinusoid table to the dequantized codes and project.
        downsample: hidden steps per code.
        output_width: width of the continuous output behind the last block.
    """

    n_mels: int
    max_positions: int
    width: int
    heads: int
    layers: int
    window: int
    quantizer_layer: int
    entries: int
    codebook_width: int
    positions_after_quantizer: bool
    downsample: int
    output_width: int

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads or self.width % 2 or self.width < 4:
            raise ConfigError(
                f"encoder_config.n_state is {self.width}; it must be an even multiple of n_head "
                f"({self.heads}), at least 4."
            )
        if not 1 <= self.quantizer_layer <= self.layers:
            raise ConfigError(
                f"encoder_config.audio_vq_layers is {self.quantizer_layer}; it must be between 1 "
                f"and n_layer ({self.layers})."
            )
        if self.downsample < 1 or self.window < 1 or self.window % self.downsample:
            raise ConfigError(
                f"encoder_config.n_window is {self.window}; it must be a multiple of "
                f"audio_vq_ds_rate ({self.downsample}), or a code would span two windows."
            )
        if self.window > self.max_positions:
            raise ConfigError(
                f"encoder_config.n_window is {self.window}, more than the {self.max_positions} "
                "positions of n_ctx; raise n_ctx or shorten the window."
            )
        for name, value in (
            ("n_mels", self.n_mels),
            ("audio_vq_codebook_size", self.entries),
            ("audio_vq_codebook_dim", self.codebook_width),
            ("output_dim", self.output_width),
        ):
            if value < 1:
                raise ConfigError(f"encoder_config.{name} must be at least 1, but is {value}.")

    @property
    def sample_rate(self) -> int:
        """Rate of the audio in Hz that the encoder is made for."""
        return ENCODER_SAMPLE_RATE

    @property
    def frames_per_code(self) -> int:
        """Mel frames per code (4 at 25 codes a second)."""
        return CONV_STRIDE * self.downsample

    @property
    def samples_per_code(self) -> int:
        """Samples of 16 kHz audio per code (640 at 25 codes a second)."""
        return ENCODER_HOP * self.frames_per_code

    @property
    def codes_per_window(self) -> int:
        """Codes of a full window (50 codes of 2 s by default)."""
        return self.window // self.downsample


@dataclass(frozen=True)
class Tokenizer25HzConfig:
    """Both halves of the 25 Hz tokenizer.

    Attributes:
        input_sample_rate, decode_upsample_rate, encode_downsample_rate: what the file declares. Its
            class defaults (24000, 1920, 1920) belong to the 12 Hz family; the true values are
            `encoder.sample_rate`, `decoder.samples_per_code` and `encoder.samples_per_code`.
        output_sample_rate: rate in Hz given to decoded audio.
    """

    encoder: Encoder25HzConfig
    decoder: Decoder25HzConfig
    input_sample_rate: int
    output_sample_rate: int
    decode_upsample_rate: int
    encode_downsample_rate: int

    def __post_init__(self) -> None:
        for name in ("input_sample_rate", "output_sample_rate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be positive, but is {getattr(self, name)}.")

    @property
    def codebooks(self) -> int:
        """Codebooks Q of a frame: always one."""
        return 1

    @property
    def samples_per_frame(self) -> int:
        """Samples of decoded audio per code."""
        return self.decoder.samples_per_code

    @property
    def frame_rate(self) -> float:
        """Codes a second that the encoder makes (25)."""
        return self.encoder.sample_rate / self.encoder.samples_per_code

    def inconsistency(self) -> str | None:
        """Why decoding what was encoded cannot give the same speech back; None if it can.

        The class defaults of the official code fail here: they pair a 25 Hz encoder with the
        decoder of a 50 Hz model of 8192 codes.
        """
        codes, entries = self.decoder.dit.code_entries, self.encoder.entries
        if codes < entries:
            return f"the decoder knows {codes} codes, but the encoder makes {entries}"
        rate = self.output_sample_rate / self.decoder.samples_per_code
        if rate != self.frame_rate:
            return (
                f"the encoder makes {self.frame_rate:g} codes a second, the decoder reads {rate:g}"
            )
        return None

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> Tokenizer25HzConfig:
        """Read a `config.json` of the official classes.

        Raises:
            ConfigError: a section is missing, a field is unknown, or a value is impossible.
        """
        return _TOKENIZER.read(data)

    def to_hf(self) -> dict[str, Any]:
        """A `config.json` that the official package reads as the same model."""
        return _TOKENIZER.write(self)


@dataclass(frozen=True)
class Quirks25Hz:
    """Where the official code departs from the better form; each quirk can be set alone.

    Attributes:
        window_mask: keep the encoder's attention inside each window. The official code (with its
            default attention) pads all windows of a call with zeros to the longest and lets them be
            attended to, so the codes of a short window depend on the rest of the call.
        pad_to_longest: decode a batch with codes and reference mels filled up to the longest, and
            let the network see what fills them up, as the official code does; otherwise every item
            is decoded exactly as if it were alone.
        declared_cut: cut decoded audio to `decode_upsample_rate` samples a code, as the file
            declares, instead of the samples that the decoder makes.
    """

    window_mask: bool = True
    pad_to_longest: bool = False
    declared_cut: bool = False

    @classmethod
    def official(cls) -> Quirks25Hz:
        """Every option in the form of the official package (`exact_reference=True`)."""
        return cls(window_mask=False, pad_to_longest=True, declared_cut=True)


_ENCODER = Section(
    Encoder25HzConfig,
    "encoder_config",
    hf("n_mels", "n_mels", integer(), 128),
    hf("n_ctx", "max_positions", integer(), 1500),
    hf("n_state", "width", integer(), 1280),
    hf("n_head", "heads", integer(), 20),
    hf("n_layer", "layers", integer(), 32),
    hf("n_window", "window", integer(), 100),
    hf("output_dim", "output_width", integer(), 3584),
    only("audio_vq_type", "GRVQ"),
    hf("audio_vq_layers", "quantizer_layer", integer(), 6),
    hf("audio_vq_codebook_size", "entries", integer(), 32768),
    hf("audio_vq_codebook_dim", "codebook_width", integer(), 1280),
    hf("audio_vq_pe", "positions_after_quantizer", boolean, True),
    hf("audio_vq_ds_rate", "downsample", integer(), 2),
    # Training and parallelism of the official encoder.
    skipped("grad_checkpointing", "enable_mp", "audio_sequence_parallel"),
)

_TOKENIZER = Section(
    Tokenizer25HzConfig,
    "speech_tokenizer/config.json",
    unread("architectures", ["Qwen3TTSTokenizerV1Model"]),
    only("model_type", TOKENIZER_25HZ, optional=False),
    hf("input_sample_rate", "input_sample_rate", integer(), 24000),
    hf("output_sample_rate", "output_sample_rate", integer(), 24000),
    hf("decode_upsample_rate", "decode_upsample_rate", integer(), 1920),
    hf("encode_downsample_rate", "encode_downsample_rate", integer(), 1920),
    subsection("encoder_config", "encoder", _ENCODER),
    subsection("decoder_config", "decoder", DECODER_25HZ),
)
