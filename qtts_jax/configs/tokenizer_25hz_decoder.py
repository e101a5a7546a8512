"""Configuration of the decoder of the 25 Hz tokenizer: flow matching and vocoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qtts_jax.configs.hf_fields import Fields
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

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> Decoder25HzConfig:
        """Read `decoder_config`; see `Tokenizer25HzConfig.from_hf`."""
        f = Fields(data, "decoder_config")
        config = cls(
            dit=_dit_from_hf(f.mapping("dit_config")),
            vocoder=_vocoder_from_hf(f.mapping("bigvgan_config")),
        )
        f.finish()
        return config

    def to_hf(self) -> dict[str, Any]:
        """The same section as the official package writes it."""
        return {"dit_config": _dit_to_hf(self.dit), "bigvgan_config": _vocoder_to_hf(self.vocoder)}


def _dit_from_hf(data: Mapping[str, Any]) -> DiTConfig:
    f = Fields(data, "dit_config")
    # The official network is built with this base whatever its configuration says.
    f.expect("rope_theta", ROPE_THETA)
    f.skip("max_position_embeddings", "dropout")
    n_mels = f.integer("mel_dim", 80)
    config = DiTConfig(
        width=f.integer("hidden_size", 1024),
        layers=f.integer("num_hidden_layers", 22),
        heads=f.integer("num_attention_heads", 16),
        head_dim=f.integer("head_dim", 64),
        ffn_mult=f.number("ff_mult", 2),
        code_width=f.integer("emb_dim", 512),
        code_entries=f.integer("num_embeds", 8193),
        repeats=f.integer("repeats", 2),
        block=f.integer("block_size", 24),
        look_ahead_layers=f.integers("look_ahead_layers", (10,)),
        look_back_layers=f.integers("look_backward_layers", (0, 20)),
        n_mels=n_mels,
        xvector_width=f.integer("enc_emb_dim", 192),
        reference_encoder=SpeakerEncoderConfig(
            embedding_dim=f.integer("enc_dim", 128, minimum=1),
            sample_rate=REFERENCE_SAMPLE_RATE,
            n_mels=n_mels,
            channels=f.integers("enc_channels", (256, 256, 256, 256, 768), minimum=1),
            kernel_sizes=f.integers("enc_kernel_sizes", (5, 3, 3, 3, 1), minimum=1),
            dilations=f.integers("enc_dilations", (1, 2, 3, 4, 1), minimum=1),
            attention_channels=f.integer("enc_attention_channels", 64, minimum=1),
            res2net_scale=f.integer("enc_res2net_scale", 2, minimum=1),
            se_channels=f.integer("enc_se_channels", 64, minimum=1),
        ),
    )
    f.finish()
    return config


def _dit_to_hf(c: DiTConfig) -> dict[str, Any]:
    e = c.reference_encoder
    return {
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "ff_mult": int(c.ffn_mult) if c.ffn_mult == int(c.ffn_mult) else c.ffn_mult,
        "emb_dim": c.code_width,
        "head_dim": c.head_dim,
        "rope_theta": c.rope_theta,
        "block_size": c.block,
        "look_ahead_layers": list(c.look_ahead_layers),
        "look_backward_layers": list(c.look_back_layers),
        "repeats": c.repeats,
        "num_embeds": c.code_entries,
        "mel_dim": c.n_mels,
        "enc_emb_dim": c.xvector_width,
        "enc_dim": e.embedding_dim,
        "enc_channels": list(e.channels),
        "enc_kernel_sizes": list(e.kernel_sizes),
        "enc_dilations": list(e.dilations),
        "enc_attention_channels": e.attention_channels,
        "enc_res2net_scale": e.res2net_scale,
        "enc_se_channels": e.se_channels,
    }


def _vocoder_from_hf(data: Mapping[str, Any]) -> BigVGANConfig:
    f = Fields(data, "bigvgan_config")
    config = BigVGANConfig(
        n_mels=f.integer("mel_dim", 80),
        width=f.integer("upsample_initial_channel", 1536),
        kernel_sizes=f.integers("resblock_kernel_sizes", (3, 7, 11)),
        dilations=f.integer_lists("resblock_dilation_sizes", ((1, 3, 5),) * 3),
        upsample_rates=f.integers("upsample_rates", (5, 3, 2, 2, 2, 2)),
        upsample_kernels=f.integers("upsample_kernel_sizes", (11, 7, 4, 4, 4, 4)),
    )
    f.finish()
    return config


def _vocoder_to_hf(c: BigVGANConfig) -> dict[str, Any]:
    return {
        "mel_dim": c.n_mels,
        "upsample_initial_channel": c.width,
        "resblock_kernel_sizes": list(c.kernel_sizes),
        "resblock_dilation_sizes": [list(d) for d in c.dilations],
        "upsample_rates": list(c.upsample_rates),
        "upsample_kernel_sizes": list(c.upsample_kernels),
    }
