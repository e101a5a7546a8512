"""Parts of a step of the talker: the draw of codebook 0 and the text beside a frame."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from qtts_jax.generation.residual_codes import codebook_keys
from qtts_jax.generation.sampling import (
    SamplingPlan,
    gumbel_noise,
    process_talker_logits,
    sample,
)
from qtts_jax.generation.state import DecodeInputs, GenerationState
from qtts_jax.models.tts_model import TTSModel


def frame_keys(conditions: DecodeInputs, frame: jax.Array) -> jax.Array:
    """The random keys [B] of the frames numbered `frame` [B]."""
    return jax.vmap(jax.random.fold_in)(conditions.keys, frame)


def draw_first(
    model: TTSModel,
    methods: SamplingPlan,
    conditions: DecodeInputs,
    state: GenerationState,
    frame: jax.Array,
) -> jax.Array:
    """Codebook 0, or the end of speech, of the frames numbered `frame` [B]: [B] int32."""
    c = model.config.talker
    with jax.named_scope("codebook_0"):
        logits = model.talker.logits(state.hidden)  # [B, V]
        logits = process_talker_logits(logits, c, state.seen, frame, conditions.repetition_penalty)
        keys = codebook_keys(frame_keys(conditions, frame), 0)
        return sample(logits, gumbel_noise(keys, c.vocab_size), conditions.talker, methods.talker)


def text_beside(
    conditions: DecodeInputs, frame: jax.Array, spoken: jax.Array | None = None
) -> jax.Array:
    """The text track [B, D] at the positions of the frames numbered `frame` [B].

    Args:
        spoken: [B] bool, false after the last frame, where no text is left; None for all true.
    """
    rows, at = jnp.arange(len(frame)), jnp.minimum(frame, conditions.text.shape[1] - 1)
    has_text = frame < conditions.text_length
    if spoken is not None:
        has_text &= spoken
    return jnp.where(has_text[:, None], conditions.text[rows, at], conditions.pad)
