"""Configuration of the 12 Hz tokenizer and the named quirks of its official code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qtts_jax.configs.hf_fields import Fields
from qtts_jax.configs.tts import TOKENIZER_12HZ, TransformerConfig
from qtts_jax.errors import ConfigError

# Stride of the convolution between the encoder's transformer and its quantizer.
DOWNSAMPLE = 2


@dataclass(frozen=True)
class QuantizerConfig:
    """Split residual vector quantizer: `semantic` books first, the rest acoustic.

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

    @property
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

    @property
    def samples_per_frame(self) -> int:
        """Samples of audio per code frame (1920 in the released model)."""
        return math.prod(self.upsampling_ratios) * math.prod(self.upsample_rates)


@dataclass(frozen=True)
class Tokenizer12HzConfig:
    """Both halves of the 12 Hz tokenizer.

    `codebooks` is how many of the encoder's books are returned (16 of 32 stored).
    """

    encoder: Encoder12HzConfig
    decoder: Decoder12HzConfig
    codebooks: int
    input_sample_rate: int
    output_sample_rate: int

    @property
    def samples_per_frame(self) -> int:
        """Samples of decoded audio per code frame."""
        return self.decoder.samples_per_frame

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> Tokenizer12HzConfig:
        """Read a released `speech_tokenizer/config.json`.

        Raises:
            ConfigError: a needed field is missing, a field is unknown, or a value is impossible.
        """
        f = Fields(data, "speech_tokenizer/config.json")
        f.expect("model_type", TOKENIZER_12HZ, optional=False)
        encoder = _encoder_from_hf(f.mapping("encoder_config"))
        decoder = _decoder_from_hf(f.mapping("decoder_config"))
        config = cls(
            encoder=encoder,
            decoder=decoder,
            codebooks=f.integer("encoder_valid_num_quantizers", minimum=1),
            input_sample_rate=f.integer("input_sample_rate", minimum=1),
            output_sample_rate=f.integer("output_sample_rate", minimum=1),
        )
        for name, rate in (
            ("decode_upsample_rate", decoder.samples_per_frame),
            ("encode_downsample_rate", encoder.samples_per_frame),
        ):
            if f.integer(name) != rate:
                raise ConfigError(
                    f"{name} is {f.integer(name)}, but the stage factors multiply to {rate}; "
                    "make them agree."
                )
        f.finish()
        if config.codebooks > encoder.quantizer.books:
            raise ConfigError(
                f"encoder_valid_num_quantizers is {config.codebooks}, more than the "
                f"{encoder.quantizer.books} codebooks of the encoder."
            )
        return config

    def to_hf(self) -> dict[str, Any]:
        """A `speech_tokenizer/config.json` that the official package reads as the same model."""
        return {
            "architectures": ["Qwen3TTSTokenizerV2Model"],
            "model_type": TOKENIZER_12HZ,
            "encoder_valid_num_quantizers": self.codebooks,
            "input_sample_rate": self.input_sample_rate,
            "output_sample_rate": self.output_sample_rate,
            "decode_upsample_rate": self.decoder.samples_per_frame,
            "encode_downsample_rate": self.encoder.samples_per_frame,
            "decoder_config": _decoder_to_hf(self.decoder),
            "encoder_config": _encoder_to_hf(self.encoder),
        }


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


def _encoder_from_hf(data: Mapping[str, Any]) -> Encoder12HzConfig:
    f = Fields(data, "encoder_config")
    f.expect("use_causal_conv", True)
    f.expect("pad_mode", "constant")
    f.expect("use_conv_shortcut", False)
    f.expect("hidden_act", "gelu")
    f.expect("attention_bias", False)
    f.expect("normalize", False)
    # Decoder-side fields of the full Mimi model, and its own streaming switch.
    f.skip("trim_right_ratio", "upsample_groups", "use_streaming", "frame_rate", "_frame_rate")
    f.expect("audio_channels", 1, optional=False)
    width = f.integer("hidden_size", minimum=1)
    heads = f.integer("num_attention_heads", minimum=1)
    ratios = tuple(reversed(f.integers("upsampling_ratios", minimum=1)))
    rate = f.integer("sampling_rate", minimum=1)
    latent_rate = rate / math.prod(ratios)
    # The official class writes what it was given under its private name, null when nothing, and
    # then computes it from the strides.
    name = "_frame_rate" if "_frame_rate" in data else "frame_rate"
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
    filters, compress = f.integer("num_filters", minimum=1), f.integer("compress", minimum=1)
    if compress > filters:
        raise ConfigError(
            f"encoder_config.compress is {compress}, more than the {filters} num_filters that it "
            "divides; lower it."
        )
    # The official attention kernels never read the window, so a file may hold null: no window.
    f.skip("sliding_window")
    unbounded = data.get("sliding_window", 0) is None
    entry_width = f.integer("codebook_dim", minimum=1)
    if f.integer("vector_quantization_hidden_dimension") != entry_width:
        raise ConfigError(
            "encoder_config.codebook_dim and vector_quantization_hidden_dimension must be equal."
        )
    config = Encoder12HzConfig(
        channels=1,
        filters=filters,
        kernel=f.integer("kernel_size", minimum=1),
        last_kernel=f.integer("last_kernel_size", minimum=1),
        residual_kernel=f.integer("residual_kernel_size", minimum=1),
        residual_layers=f.integer("num_residual_layers"),
        dilation_growth=f.integer("dilation_growth_rate", minimum=1),
        compress=compress,
        ratios=ratios,
        downsample=downsample,
        transformer=TransformerConfig(
            width=width,
            layers=f.integer("num_hidden_layers", minimum=1),
            heads=heads,
            kv_heads=f.integer("num_key_value_heads", minimum=1),
            head_dim=f.integer("head_dim", width // heads, minimum=1),
            ffn_width=f.integer("intermediate_size", minimum=1),
            norm_eps=f.number("norm_eps"),
            rope_theta=f.number("rope_theta"),
            max_positions=f.integer("max_position_embeddings", minimum=1),
            norm="layer",
            ffn="gelu",
            layer_scale=f.number("layer_scale_initial_scale"),
            window=None if unbounded else f.integer("sliding_window", minimum=1),
            init_std=f.number("initializer_range", 0.02),
        ),
        quantizer=QuantizerConfig(
            books=f.integer("num_quantizers", minimum=1),
            semantic=f.integer("num_semantic_quantizers", minimum=1),
            entries=f.integer("codebook_size", minimum=1),
            width=entry_width,
            model_width=width,
        ),
        sample_rate=rate,
    )
    f.finish()
    return config


def _encoder_to_hf(c: Encoder12HzConfig) -> dict[str, Any]:
    t, q = c.transformer, c.quantizer
    return {
        "_frame_rate": c.sample_rate / c.samples_per_frame,
        "attention_bias": False,
        "audio_channels": c.channels,
        "codebook_dim": q.width,
        "codebook_size": q.entries,
        "compress": c.compress,
        "dilation_growth_rate": c.dilation_growth,
        "head_dim": t.head_dim,
        "hidden_act": "gelu",
        "hidden_size": t.width,
        "initializer_range": t.init_std,
        "intermediate_size": t.ffn_width,
        "kernel_size": c.kernel,
        "last_kernel_size": c.last_kernel,
        "layer_scale_initial_scale": t.layer_scale,
        "max_position_embeddings": t.max_positions,
        "norm_eps": t.norm_eps,
        "num_attention_heads": t.heads,
        "num_filters": c.filters,
        "num_hidden_layers": t.layers,
        "num_key_value_heads": t.kv_heads,
        "num_quantizers": q.books,
        "num_residual_layers": c.residual_layers,
        "num_semantic_quantizers": q.semantic,
        "pad_mode": "constant",
        "residual_kernel_size": c.residual_kernel,
        "rope_theta": t.rope_theta,
        "sampling_rate": c.sample_rate,
        "sliding_window": t.window,
        "upsample_groups": t.width,
        "upsampling_ratios": list(reversed(c.ratios)),
        "use_causal_conv": True,
        "use_conv_shortcut": False,
        "vector_quantization_hidden_dimension": q.width,
    }


def _decoder_from_hf(data: Mapping[str, Any]) -> Decoder12HzConfig:
    f = Fields(data, "decoder_config")
    f.expect("hidden_act", "silu")
    f.expect("attention_bias", False)
    # Present in the released file, read by nobody: the semantic book has codebook_size entries.
    f.skip("semantic_codebook_size", "vector_quantization_hidden_dimension", "layer_types")
    # Never read either: the official decoder always has one semantic book.
    f.skip("num_semantic_quantizers")
    width = f.integer("hidden_size", minimum=1)
    heads = f.integer("num_attention_heads", minimum=1)
    model_width = f.integer("codebook_dim", minimum=2)
    config = Decoder12HzConfig(
        quantizer=QuantizerConfig(
            books=f.integer("num_quantizers", minimum=1),
            semantic=1,
            entries=f.integer("codebook_size", minimum=1),
            # The official decoder builds its books at half the projected width.
            width=model_width // 2,
            model_width=model_width,
        ),
        transformer=TransformerConfig(
            width=width,
            layers=f.integer("num_hidden_layers", minimum=1),
            heads=heads,
            kv_heads=f.integer("num_key_value_heads", minimum=1),
            head_dim=f.integer("head_dim", width // heads, minimum=1),
            ffn_width=f.integer("intermediate_size", minimum=1),
            norm_eps=f.number("rms_norm_eps"),
            rope_theta=f.number("rope_theta"),
            max_positions=f.integer("max_position_embeddings", minimum=1),
            layer_scale=f.number("layer_scale_initial_scale"),
            window=f.integer("sliding_window", minimum=1),
            init_std=f.number("initializer_range", 0.02),
        ),
        latent_width=f.integer("latent_dim", minimum=1),
        upsampling_ratios=f.integers("upsampling_ratios", minimum=1),
        decoder_width=f.integer("decoder_dim", minimum=1),
        upsample_rates=f.integers("upsample_rates", minimum=1),
    )
    f.finish()
    return config


def _decoder_to_hf(c: Decoder12HzConfig) -> dict[str, Any]:
    t, q = c.transformer, c.quantizer
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "latent_dim": c.latent_width,
        "codebook_dim": q.model_width,
        "codebook_size": q.entries,
        "decoder_dim": c.decoder_width,
        "hidden_act": "silu",
        "hidden_size": t.width,
        "intermediate_size": t.ffn_width,
        "layer_scale_initial_scale": t.layer_scale,
        "max_position_embeddings": t.max_positions,
        "head_dim": t.head_dim,
        "num_attention_heads": t.heads,
        "num_hidden_layers": t.layers,
        "num_key_value_heads": t.kv_heads,
        "num_quantizers": q.books,
        "num_semantic_quantizers": q.semantic,
        "rms_norm_eps": t.norm_eps,
        "rope_theta": t.rope_theta,
        "sliding_window": t.window,
        "upsample_rates": list(c.upsample_rates),
        "upsampling_ratios": list(c.upsampling_ratios),
    }
