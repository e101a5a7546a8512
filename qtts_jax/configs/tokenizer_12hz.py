"""Configuration of the 12 Hz tokenizer and the named quirks of its official code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from qtts_jax.configs.fields import Fields
from qtts_jax.configs.sections import (
    Row,
    Section,
    Values,
    derived,
    hf,
    integer,
    integers,
    number,
    only,
    skipped,
    subsection,
    unread,
)
from qtts_jax.configs.tts import TOKENIZER_12HZ, TransformerConfig
from qtts_jax.errors import ConfigError

# Stride of the convolution between the encoder's transformer and its quantizer.
DOWNSAMPLE = 2


@dataclass(frozen=True)
class QuantizerConfig:
    """Split residual vector quantizer: `semantic` codebooks first, the rest acoustic.

    Attributes:
        books: codebooks stored (Q of the checkpoint, may exceed the number in use).
        entries: rows V per codebook.
        width: width d of a codebook row.
        model_width: width D on the outside of the two projections.
    """

    books: int
    semantic: int
    entries: int
    width: int
    model_width: int

    def __post_init__(self) -> None:
        if not 1 <= self.semantic <= self.books:
            raise ConfigError(
                f"num_semantic_quantizers is {self.semantic}; it must be between 1 and "
                f"num_quantizers ({self.books})."
            )


@dataclass(frozen=True)
class Encoder12HzConfig:
    """SEANet, transformer, downsampling convolution and split RVQ (Mimi's encoder).

    Attributes:
        ratios: strides of the SEANet stages in the order of the waveform (4, 5, 6, 8).
        downsample: stride of the convolution between transformer and quantizer.
    """

    channels: int
    filters: int
    kernel: int
    last_kernel: int
    residual_kernel: int
    residual_layers: int
    dilation_growth: int
    compress: int
    ratios: tuple[int, ...]
    downsample: int
    transformer: TransformerConfig
    quantizer: QuantizerConfig
    sample_rate: int

    def __post_init__(self) -> None:
        if self.compress > self.filters:
            raise ConfigError(
                f"encoder_config.compress is {self.compress}, more than the {self.filters} "
                "num_filters that it divides; lower it."
            )

    @cached_property
    def samples_per_frame(self) -> int:
        """Samples of audio per code frame (1920 in the released model)."""
        return math.prod(self.ratios) * self.downsample


@dataclass(frozen=True)
class Decoder12HzConfig:
    """Split RVQ, causal transformer, upsampling and Snake decoder; fully causal.

    Attributes:
        latent_width: width between quantizer, transformer and upsampling.
        upsampling_ratios: factors of the ConvNeXt stages (frames to latent steps).
        decoder_width: channels of the first Snake stage, halved at every stage.
        upsample_rates: factors of the Snake stages (latent steps to samples).
    """

    quantizer: QuantizerConfig
    transformer: TransformerConfig
    latent_width: int
    upsampling_ratios: tuple[int, ...]
    decoder_width: int
    upsample_rates: tuple[int, ...]

    @cached_property
    def samples_per_frame(self) -> int:
        """Samples of audio per code frame (1920 in the released model)."""
        return math.prod(self.upsampling_ratios) * math.prod(self.upsample_rates)


@dataclass(frozen=True)
class Tokenizer12HzConfig:
    """Both halves of the 12 Hz tokenizer.

    `codebooks` is how many of the encoder's codebooks are returned (16 of 32 stored).
    """

    encoder: Encoder12HzConfig
    decoder: Decoder12HzConfig
    codebooks: int
    input_sample_rate: int
    output_sample_rate: int

    def __post_init__(self) -> None:
        if self.codebooks > self.encoder.quantizer.books:
            raise ConfigError(
                f"encoder_valid_num_quantizers is {self.codebooks}, more than the "
                f"{self.encoder.quantizer.books} codebooks of the encoder."
            )

    @cached_property
    def samples_per_frame(self) -> int:
        """Samples of decoded audio per code frame."""
        return self.decoder.samples_per_frame

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> Tokenizer12HzConfig:
        """Read a released `speech_tokenizer/config.json`.

        Raises:
            ConfigError: a needed field is missing, a field is unknown, or a value is impossible.
        """
        return _TOKENIZER.read(data)

    def to_hf(self) -> dict[str, Any]:
        """A `speech_tokenizer/config.json` that the official package reads as the same model."""
        return _TOKENIZER.write(self)


@dataclass(frozen=True)
class Quirks12Hz:
    """Where the official code departs from the better form; each quirk can be set alone.

    Attributes:
        encoder_window: apply the configured attention window (10 s at the released sizes) in the
            encoder, so that a stream without end needs constant memory. The official code
            configures the window but attends to all earlier frames (with its default attention
            kernels), and so does the default here: codes after the window would be others.
        downsample_padding: what the downsampling convolution sees before the first and after the
            last frame: "replicate" repeats the edge frame as the official code does, "zeros" is
            the padding of every other convolution.
        pad_to_longest: in a batch, let shorter items see the zeros that fill them up to the
            longest item, as the official code does; otherwise every item is encoded exactly as
            if it were alone.
        decode_chunk: decode in chunks of this many frames, each from a fresh state with
            `decode_context` frames of left context; None carries the exact state, with no seam.
        proportional_cut: cut the reference audio off a cloned voice at the official floating
            point proportion, which can be one sample early, instead of at the exact frame edge.
    """

    encoder_window: bool = False
    downsample_padding: Literal["replicate", "zeros"] = "replicate"
    pad_to_longest: bool = False
    decode_chunk: int | None = None
    decode_context: int = 25
    proportional_cut: bool = False

    @classmethod
    def official(cls) -> Quirks12Hz:
        """Every option in the form of the official package (`exact_reference=True`)."""
        return cls(
            encoder_window=False,
            downsample_padding="replicate",
            pad_to_longest=True,
            decode_chunk=300,
            decode_context=25,
            proportional_cut=True,
        )


def _default_head_dim(values: Values) -> int:
    return values["transformer.width"] // values["transformer.heads"]


def _read_downsample(f: Fields, values: Values) -> int:
    """The factor between the rates of latent steps and frames, which must be `DOWNSAMPLE`."""
    latent_rate = values["sample_rate"] / math.prod(values["ratios"])
    # The official class writes what it was given under its private name, null when nothing, and
    # then computes it from the strides.
    name = "_frame_rate" if f.has("_frame_rate") else "frame_rate"
    frame_rate = f.number(name, latent_rate / DOWNSAMPLE)
    if not frame_rate > 0:
        raise ConfigError(f"encoder_config.{name} must be positive, but is {frame_rate:g}.")
    downsample = round(latent_rate / frame_rate)
    if downsample < 1 or not math.isclose(latent_rate, downsample * frame_rate):
        raise ConfigError(
            f"encoder_config: {latent_rate:g} latent steps a second cannot be brought to the frame "
            f"rate {frame_rate:g} by a whole factor; correct upsampling_ratios or frame_rate."
        )
    if downsample != DOWNSAMPLE:
        raise ConfigError(
            f"encoder_config: the downsampling factor is {downsample}, but this architecture has "
            f"a fixed stride of {DOWNSAMPLE}; correct upsampling_ratios or frame_rate."
        )
    return downsample


def _window_or_none(f: Fields, name: str, default: Any) -> int | None:
    """The official attention kernels never read the window, so a file may hold null: no window."""
    return None if f.is_null(name) else f.integer(name, default, minimum=1)


def _ratios(f: Fields, name: str, default: Any) -> tuple[int, ...]:
    """The file lists the strides in the order of the decoder."""
    return tuple(reversed(f.integers(name, default, minimum=1)))


def _expect_projection_width(f: Fields, values: Values) -> None:
    if f.integer("vector_quantization_hidden_dimension") != values["quantizer.width"]:
        raise ConfigError(
            "encoder_config.codebook_dim and vector_quantization_hidden_dimension must be equal."
        )


_ENCODER = Section(
    Encoder12HzConfig,
    "encoder_config",
    Row(
        "_frame_rate",
        "downsample",
        _read_downsample,
        lambda c: c.sample_rate / c.samples_per_frame,
        late=True,
    ),
    only("attention_bias", False),
    hf("audio_channels", "channels", lambda f, name, _: f.expect(name, 1, optional=False)),
    hf("codebook_dim", "quantizer.width", integer(1)),
    hf("codebook_size", "quantizer.entries", integer(1)),
    hf("compress", "compress", integer(1)),
    hf("dilation_growth_rate", "dilation_growth", integer(1)),
    hf("head_dim", "transformer.head_dim", integer(1), _default_head_dim),
    only("hidden_act", "gelu"),
    hf("hidden_size", "transformer.width", integer(1)),
    hf("initializer_range", "transformer.init_std", number, 0.02),
    hf("intermediate_size", "transformer.ffn_width", integer(1)),
    hf("kernel_size", "kernel", integer(1)),
    hf("last_kernel_size", "last_kernel", integer(1)),
    hf("layer_scale_initial_scale", "transformer.layer_scale", number),
    hf("max_position_embeddings", "transformer.max_positions", integer(1)),
    hf("norm_eps", "transformer.norm_eps", number),
    hf("num_attention_heads", "transformer.heads", integer(1)),
    hf("num_filters", "filters", integer(1)),
    hf("num_hidden_layers", "transformer.layers", integer(1)),
    hf("num_key_value_heads", "transformer.kv_heads", integer(1)),
    hf("num_quantizers", "quantizer.books", integer(1)),
    hf("num_residual_layers", "residual_layers", integer()),
    hf("num_semantic_quantizers", "quantizer.semantic", integer(1)),
    only("pad_mode", "constant"),
    hf("residual_kernel_size", "residual_kernel", integer(1)),
    hf("rope_theta", "transformer.rope_theta", number),
    hf("sampling_rate", "sample_rate", integer(1)),
    hf("sliding_window", "transformer.window", _window_or_none),
    unread("upsample_groups", lambda c: c.transformer.width),
    hf("upsampling_ratios", "ratios", _ratios, write=lambda ratios: list(reversed(ratios))),
    only("use_causal_conv", True),
    only("use_conv_shortcut", False),
    Row(
        "vector_quantization_hidden_dimension",
        None,
        _expect_projection_width,
        lambda c: c.quantizer.width,
        late=True,
    ),
    only("normalize", False, written=False),
    # Decoder-side fields of the full Mimi model, and its own streaming switch.
    skipped("trim_right_ratio", "use_streaming", "frame_rate", "_frame_rate"),
    derived("transformer.norm", "layer"),
    derived("transformer.ffn", "gelu"),
    derived("quantizer.model_width", lambda values: values["transformer.width"]),
)

_DECODER = Section(
    Decoder12HzConfig,
    "decoder_config",
    only("attention_bias", False),
    unread("attention_dropout", 0.0),
    hf("latent_dim", "latent_width", integer(1)),
    hf("codebook_dim", "quantizer.model_width", integer(2)),
    hf("codebook_size", "quantizer.entries", integer(1)),
    hf("decoder_dim", "decoder_width", integer(1)),
    only("hidden_act", "silu"),
    hf("hidden_size", "transformer.width", integer(1)),
    hf("intermediate_size", "transformer.ffn_width", integer(1)),
    hf("layer_scale_initial_scale", "transformer.layer_scale", number),
    hf("max_position_embeddings", "transformer.max_positions", integer(1)),
    hf("head_dim", "transformer.head_dim", integer(1), _default_head_dim),
    hf("num_attention_heads", "transformer.heads", integer(1)),
    hf("num_hidden_layers", "transformer.layers", integer(1)),
    hf("num_key_value_heads", "transformer.kv_heads", integer(1)),
    hf("num_quantizers", "quantizer.books", integer(1)),
    # The official decoder has one semantic codebook whatever the file says.
    unread("num_semantic_quantizers", lambda c: c.quantizer.semantic),
    hf("rms_norm_eps", "transformer.norm_eps", number),
    hf("rope_theta", "transformer.rope_theta", number),
    hf("sliding_window", "transformer.window", integer(1)),
    hf("upsample_rates", "upsample_rates", integers(1)),
    hf("upsampling_ratios", "upsampling_ratios", integers(1)),
    Row(None, "transformer.init_std", lambda f, _: f.number("initializer_range", 0.02)),
    # In the released file, but the official decoder does not read them: its semantic codebook has
    # codebook_size entries.
    skipped("semantic_codebook_size", "vector_quantization_hidden_dimension", "layer_types"),
    derived("quantizer.semantic", 1),
    # The official decoder builds its codebooks at half the projected width.
    derived("quantizer.width", lambda values: values["quantizer.model_width"] // 2),
)


def _declared_rate(name: str, half: str) -> Row:
    """A field that repeats the product of the stage factors of the encoder or decoder."""

    def read(f: Fields, values: Values) -> None:
        declared, rate = f.integer(name), values[half].samples_per_frame
        if declared != rate:
            raise ConfigError(
                f"{name} is {declared}, but the stage factors multiply to {rate}; make them agree."
            )

    return Row(name, None, read, lambda c: getattr(c, half).samples_per_frame, late=True)


_TOKENIZER = Section(
    Tokenizer12HzConfig,
    "speech_tokenizer/config.json",
    unread("architectures", ["Qwen3TTSTokenizerV2Model"]),
    only("model_type", TOKENIZER_12HZ, optional=False),
    hf("encoder_valid_num_quantizers", "codebooks", integer(1)),
    hf("input_sample_rate", "input_sample_rate", integer(1)),
    hf("output_sample_rate", "output_sample_rate", integer(1)),
    _declared_rate("decode_upsample_rate", "decoder"),
    _declared_rate("encode_downsample_rate", "encoder"),
    subsection("decoder_config", "decoder", _DECODER),
    subsection("encoder_config", "encoder", _ENCODER),
)
