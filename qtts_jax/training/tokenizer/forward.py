"""Encoder and decoder of a tokenizer over complete rows from a fresh state."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.models.tokenizer_12hz.decoder import Decoder, DecoderState
from qtts_jax.models.tokenizer_12hz.encoder import Encoder, EncoderState


def resample_frames(features: jax.Array, frames: int) -> jax.Array:
    """Resample features to `frames` frames by averaging over time, at any ratio of the rates.

    A feature that spans two frames counts in each by its share of time.

    Args:
        features: [B, T', D] over the same time.

    Returns:
        float32 [B, frames, D].
    """
    given = features.shape[1]
    edges = np.arange(frames + 1) * (given / frames)
    starts = np.arange(given)
    shared = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    shares = np.maximum(shared, 0) * (frames / given)
    return jnp.einsum(
        "ts,bsd->btd", shares.astype(np.float32), features.astype(jnp.float32), precision="highest"
    )


def embed(encoder: Encoder, audio: jax.Array) -> jax.Array:
    """Vectors [B, T, D] before quantization of audio [B, N] from a fresh state."""
    rows, samples = audio.shape
    state = encoder.init_state(rows, audio.dtype, samples // encoder.config.samples_per_frame)
    return encoder.embed(audio, state._replace(transformer=_short(encoder, state, rows)))[0]


def synthesize(decoder: Decoder, x: jax.Array) -> jax.Array:
    """Samples [B, N], not clipped, of quantizer vectors [B, T, D] from a fresh state."""
    rows = x.shape[0]
    state = decoder.init_state(rows, x.dtype)
    return decoder.synthesize(x, state._replace(transformer=_short(decoder, state, rows)))[0]


def _short(half: Encoder | Decoder, state: EncoderState | DecoderState, rows: int) -> Any:
    """The transformer's state without a cache for earlier keys, since a fresh window has none."""
    if half.transformer.config.window is None:
        return state.transformer
    dtype = state.transformer.layers[0].keys.dtype
    return half.transformer.init_state(rows, dtype, 0)
