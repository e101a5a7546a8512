"""The speaker encoder of Base checkpoints: an ECAPA-TDNN from log-mels to one vector."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tts import SpeakerEncoderConfig
from qtts_jax.errors import AudioError, ConfigError
from qtts_jax.layers.conv import valid_steps
from qtts_jax.modules.ecapa_tdnn import (
    TDNN,
    AttentiveStatisticsPooling,
    ReflectConv,
    SERes2NetBlock,
    reflection,
)


def min_frames(config: SpeakerEncoderConfig) -> int:
    """Mel frames that an input needs at least: one more than the widest reflection."""
    filters = list(zip(config.kernel_sizes, config.dilations, strict=True))
    if config.res2net_scale == 1:
        # One group passes through unfiltered, so only the first and the last layer convolve.
        filters = [filters[0], filters[-1]]
    return 1 + max(max(reflection(kernel, dilation)) for kernel, dilation in filters)


class SpeakerEncoder(nnx.Module):
    """ECAPA-TDNN (Desplanques et al. 2020; upstream `Qwen3TTSSpeakerEncoder`).

    One TDNN layer, SE-Res2Net blocks, aggregation of the outputs of all these blocks, attentive
    statistics pooling and a linear map. The embedding is not normalized.

    Raises:
        ConfigError: sizes that cannot be built (see `_check`).
    """

    def __init__(self, config: SpeakerEncoderConfig, *, rngs: nnx.Rngs) -> None:
        _check(config)
        self.config = config
        c, layers = config, list(zip(config.kernel_sizes, config.dilations, strict=True))
        width, aggregated = c.channels[0], c.channels[-1]
        first: TDNN | SERes2NetBlock = TDNN(c.n_mels, width, *layers[0], rngs=rngs)
        self.blocks = nnx.List(
            [first]
            + [
                SERes2NetBlock(
                    width, *layer, scale=c.res2net_scale, se_channels=c.se_channels, rngs=rngs
                )
                for layer in layers[1:-1]
            ]
        )
        self.mfa = TDNN(aggregated, aggregated, *layers[-1], rngs=rngs)
        self.pooling = AttentiveStatisticsPooling(aggregated, c.attention_channels, rngs=rngs)
        self.output = ReflectConv(2 * aggregated, c.embedding_dim, rngs=rngs)

    def __call__(self, mel: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        """Speaker embeddings.

        Args:
            mel: [B, T, M], log-mels of any floating dtype, computed in the parameters' dtype.
            lengths: [B] int, the real frames of each row; what lies behind them (NaN included)
                has no effect, so inputs may be padded to a few lengths. None for all T.

        Returns:
            [B, E] in the dtype of the parameters. A row whose length is not between
            `min_frames(config)` and T is NaN, since values cannot raise under `jax.jit`.

        Raises:
            AudioError: T is below `min_frames(config)`.
        """
        frames, needed = mel.shape[1], min_frames(self.config)
        if frames < needed:
            raise AudioError(
                f"A speaker embedding needs at least {needed} mel frames, got {frames}: give a "
                "longer reference recording."
            )
        if lengths is None:
            lengths = jnp.full(mel.shape[:1], frames, jnp.int32)
        x = jnp.where(valid_steps(mel, lengths), mel, 0).astype(self.output.kernel[...].dtype)
        outputs = []
        for i, block in enumerate(self.blocks):
            with jax.named_scope(f"block_{i}"):
                x = block(x, lengths)
            outputs.append(x)  # [B, T, C]
        with jax.named_scope("aggregation"):
            x = self.mfa(jnp.concatenate(outputs[1:], axis=-1), lengths)
        with jax.named_scope("pooling"):
            statistics = self.pooling(x, lengths)  # [B, 2 C]
        embedding = self.output(statistics[:, None], lengths)[:, 0]  # [B, E]
        possible = (lengths >= needed) & (lengths <= frames)
        return jnp.where(possible[:, None], embedding, jnp.nan)


def _check(c: SpeakerEncoderConfig) -> None:
    """Raise ConfigError for sizes under which the residual sums or the groups do not fit."""
    layers = len(c.channels)
    if layers < 3 or not layers == len(c.kernel_sizes) == len(c.dilations):
        raise ConfigError(
            "speaker_encoder_config needs enc_channels, enc_kernel_sizes and enc_dilations of one "
            f"length of at least 3, not {layers}, {len(c.kernel_sizes)} and {len(c.dilations)}."
        )
    *inner, aggregated = c.channels
    if len(set(inner)) > 1:
        raise ConfigError(
            f"All enc_channels but the last must be equal for the residual sums, not {inner}."
        )
    if aggregated != sum(inner[1:]):
        raise ConfigError(
            f"The last of enc_channels must be the {sum(inner[1:])} channels of all blocks "
            f"together, not {aggregated}."
        )
    if inner[0] % c.res2net_scale:
        raise ConfigError(
            f"{inner[0]} enc_channels cannot be split into {c.res2net_scale} groups: make them a "
            "multiple of enc_res2net_scale."
        )
