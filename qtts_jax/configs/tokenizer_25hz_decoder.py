"""Configuration of the decoder of the 25 Hz tokenizer: flow matching and vocoder."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qtts_jax.configs.fields import Fields
from qtts_jax.configs.sections import (
    Section,
    derived,
    hf,
    integer,
    integer_lists,
    integers,
    number,
    skipped,
    subsection,
)
from qtts_jax.configs.tts import SpeakerEncoderConfig
from qtts_jax.errors import ConfigError

# The reference mel is made for this rate; its section has no field for it.
REFERENCE_SAMPLE_RATE = 16_000
ROPE_THETA = 10_000.0


@dataclass(frozen=True)
class DiTConfig:
    """Flow-matching transformer from codes to a mel spectrogram.

    Attributes:
        width, layers, heads, head_dim: width D, blocks, heads H and head width h.
        ffn_mult: feed-forward width as a multiple of `width`.
        code_width: width of a code's embedding.
        code_entries: code ids (`num_embeds`); the table has one row more.
        repeats: mel frames per code.
        block: mel frames of an attention block.
        look_ahead_layers, look_back_layers: blocks (layers) whose attention also sees the next, the
            previous attention block; all others see their own alone.
        n_mels: mel bins M.
        xvector_width: width of the speaker's x-vector.
        reference_encoder: ECAPA-TDNN over the reference mel.
    """

    width: int
    layers: int
    heads: int
    head_dim: int
    ffn_mult: float
    code_width: int
    code_entries: int
    repeats: int
    block: int
    look_ahead_layers: tuple[int, ...]
    look_back_layers: tuple[int, ...]
    n_mels: int
    xvector_width: int
    reference_encoder: SpeakerEncoderConfig
    rope_theta: float = ROPE_THETA

    def __post_init__(self) -> None:
        if self.head_dim % 2:
            raise ConfigError(
                f"dit_config.head_dim must be even for rotary positions, not {self.head_dim}."
            )
        for name, value in (
            ("hidden_size", self.width),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("head_dim", self.head_dim),
            ("emb_dim", self.code_width),
            ("num_embeds", self.code_entries),
            ("repeats", self.repeats),
            ("block_size", self.block),
            ("mel_dim", self.n_mels),
            ("ff_mult", self.ffn_width),
        ):
            if value < 1:
                raise ConfigError(f"dit_config.{name} must be positive, but is {value}.")

    @property
    def ffn_width(self) -> int:
        """Feed-forward width F."""
        return int(self.width * self.ffn_mult)

    def looks_ahead(self, layer: int) -> int:
        """Attention blocks that layer `layer` sees after its own (0 or 1)."""
        return int(layer in self.look_ahead_layers)

    def looks_back(self, layer: int) -> int:
        """Attention blocks that layer `layer` sees before its own (0 or 1)."""
        return int(layer in self.look_back_layers)


@dataclass(frozen=True)
class BigVGANConfig:
    """Vocoder from mel frames to samples with anti-aliased Snake.

    Attributes:
        n_mels: mel bins M.
        width: channels in front of the first stage, halved at every stage.
        kernel_sizes, dilations: per residual block of a stage its kernel and its three dilations.
        upsample_rates, upsample_kernels: factor and kernel of every stage.
    """

    n_mels: int
    width: int
    kernel_sizes: tuple[int, ...]
    dilations: tuple[tuple[int, ...], ...]
    upsample_rates: tuple[int, ...]
    upsample_kernels: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.kernel_sizes) != len(self.dilations) or not self.kernel_sizes:
            raise ConfigError(
                "bigvgan_config.resblock_kernel_sizes and resblock_dilation_sizes must be equally "
                f"long, but have {len(self.kernel_sizes)} and {len(self.dilations)} entries."
            )
        if len(self.upsample_rates) != len(self.upsample_kernels) or not self.upsample_rates:
            raise ConfigError(
                "bigvgan_config.upsample_rates and upsample_kernel_sizes must be equally long, "
                f"but have {len(self.upsample_rates)} and {len(self.upsample_kernels)} entries."
            )
        if any(k < 1 or k % 2 == 0 for k in self.kernel_sizes):
            raise ConfigError(
                f"bigvgan_config.resblock_kernel_sizes must be odd, not {self.kernel_sizes}."
            )
        if any(len(d) != 3 or min(d) < 1 for d in self.dilations):
            raise ConfigError(
                "bigvgan_config.resblock_dilation_sizes must hold three positive dilations per "
                f"block, not {self.dilations}."
            )
        for rate, kernel in zip(self.upsample_rates, self.upsample_kernels, strict=True):
            if rate < 1 or kernel < rate or (kernel - rate) % 2:
                raise ConfigError(
                    f"bigvgan_config: a stage of rate {rate} cannot have kernel {kernel}; kernel "
                    "minus rate must be even and not negative."
                )
        if self.n_mels < 1 or self.width < 1 or self.width % 2 ** len(self.upsample_rates):
            raise ConfigError(
                f"bigvgan_config.upsample_initial_channel is {self.width}; every one of the "
                f"{len(self.upsample_rates)} stages must be able to halve it."
            )

    @property
    def samples_per_frame(self) -> int:
        """Samples of audio per mel frame (240 by default)."""
        return math.prod(self.upsample_rates)


@dataclass(frozen=True)
class Decoder25HzConfig:
    """Codes, x-vector and reference mel to samples: flow matching, then the vocoder."""

    dit: DiTConfig
    vocoder: BigVGANConfig

    def __post_init__(self) -> None:
        if self.dit.n_mels != self.vocoder.n_mels:
            raise ConfigError(
                f"dit_config.mel_dim is {self.dit.n_mels} and bigvgan_config.mel_dim is "
                f"{self.vocoder.n_mels}; make them agree."
            )

    @property
    def samples_per_code(self) -> int:
        """Samples of decoded audio per code (480 by default, 960 at 25 codes a second)."""
        return self.dit.repeats * self.vocoder.samples_per_frame


def _rope_theta(f: Fields, name: str, default: float) -> float:
    """The official network is built with this base whatever its configuration says."""
    return f.expect(name, default)


def _whole_if_possible(value: float) -> float:
    return int(value) if value == int(value) else value


_DIT = Section(
    DiTConfig,
    "dit_config",
    hf("hidden_size", "width", integer(), 1024),
    hf("num_hidden_layers", "layers", integer(), 22),
    hf("num_attention_heads", "heads", integer(), 16),
    hf("ff_mult", "ffn_mult", number, 2, write=_whole_if_possible),
    hf("emb_dim", "code_width", integer(), 512),
    hf("head_dim", "head_dim", integer(), 64),
    hf("rope_theta", "rope_theta", _rope_theta, ROPE_THETA),
    hf("block_size", "block", integer(), 24),
    hf("look_ahead_layers", "look_ahead_layers", integers(), (10,)),
    hf("look_backward_layers", "look_back_layers", integers(), (0, 20)),
    hf("repeats", "repeats", integer(), 2),
    hf("num_embeds", "code_entries", integer(), 8193),
    hf("mel_dim", "n_mels", integer(), 80),
    hf("enc_emb_dim", "xvector_width", integer(), 192),
    hf("enc_dim", "reference_encoder.embedding_dim", integer(1), 128),
    hf("enc_channels", "reference_encoder.channels", integers(1), (256, 256, 256, 256, 768)),
    hf("enc_kernel_sizes", "reference_encoder.kernel_sizes", integers(1), (5, 3, 3, 3, 1)),
    hf("enc_dilations", "reference_encoder.dilations", integers(1), (1, 2, 3, 4, 1)),
    hf("enc_attention_channels", "reference_encoder.attention_channels", integer(1), 64),
    hf("enc_res2net_scale", "reference_encoder.res2net_scale", integer(1), 2),
    hf("enc_se_channels", "reference_encoder.se_channels", integer(1), 64),
    skipped("max_position_embeddings", "dropout"),
    derived("reference_encoder.sample_rate", REFERENCE_SAMPLE_RATE),
    derived("reference_encoder.n_mels", lambda values: values["n_mels"]),
)

_VOCODER = Section(
    BigVGANConfig,
    "bigvgan_config",
    hf("mel_dim", "n_mels", integer(), 80),
    hf("upsample_initial_channel", "width", integer(), 1536),
    hf("resblock_kernel_sizes", "kernel_sizes", integers(), (3, 7, 11)),
    hf("resblock_dilation_sizes", "dilations", integer_lists, ((1, 3, 5),) * 3),
    hf("upsample_rates", "upsample_rates", integers(), (5, 3, 2, 2, 2, 2)),
    hf("upsample_kernel_sizes", "upsample_kernels", integers(), (11, 7, 4, 4, 4, 4)),
)

# `decoder_config`, a section of the configuration of the whole tokenizer.
DECODER_25HZ = Section(
    Decoder25HzConfig,
    "decoder_config",
    subsection("dit_config", "dit", _DIT),
    subsection("bigvgan_config", "vocoder", _VOCODER),
)
