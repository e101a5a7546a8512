"""One frame: codebook 0 from the talker, the other codebooks from the code predictor."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from qtts_jax.generation.sampling import (
    NOT_FINITE,
    SamplingPlan,
    gumbel_noise,
    process_talker_logits,
    sample,
)
from qtts_jax.generation.state import DecodeInputs, GenerationState, PromptBatch
from qtts_jax.models.tts_model import TTSModel


def embed_prompt(model: TTSModel, prompt: PromptBatch) -> jax.Array:
    """Embed a prompt: the sum of the embeddings of its tracks, [B, T, D]."""
    x = model.talker.embed_text(prompt.text) + model.talker.embed_codec(prompt.codec)
    if model.code_predictor is not None:
        x = x + model.code_predictor.embed(prompt.residual)
    speaker = prompt.embedding.astype(x.dtype)[:, None]
    return x + jnp.where(prompt.speaker[..., None], speaker, 0)


def prefill(model: TTSModel, prompt: PromptBatch, capacity: int) -> GenerationState:
    """Run the prompts and return the state before frame 0.

    Args:
        capacity: positions of the caches, at least the padded prompt.
    """
    x = embed_prompt(model, prompt)  # [B, T, D]
    batch = x.shape[0]
    talker = model.talker.init_state(batch, x.dtype, capacity)
    y, talker = model.talker.step(x, talker, prompt.lengths)  # [B, T, D]
    return GenerationState(
        talker=talker,
        hidden=y[jnp.arange(batch), prompt.lengths - 1],
        seen=jnp.zeros((batch, model.config.talker.vocab_size), bool),
        frame=jnp.zeros((batch,), jnp.int32),
        done=jnp.zeros((batch,), bool),
    )


def frame_step(
    model: TTSModel, methods: SamplingPlan, conditions: DecodeInputs, state: GenerationState
) -> tuple[jax.Array, GenerationState]:
    """Generate one frame for every row that is not done.

    Returns:
        codes [B, Q] int32, all -1 in rows that are done (the end-of-speech token is no frame), all
        NOT_FINITE in rows that this frame ends because logits are NaN or infinite, and the new
        state.
    """
    c = model.config.talker
    frame_keys = jax.vmap(jax.random.fold_in)(conditions.keys, state.frame)

    def noise(codebook: jax.Array | int, vocab: int) -> jax.Array:
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(frame_keys, codebook)
        return gumbel_noise(keys, vocab)

    with jax.named_scope("codebook_0"):
        logits = model.talker.logits(state.hidden)  # [B, V]
        logits = process_talker_logits(
            logits, c, state.seen, state.frame, conditions.repetition_penalty
        )
        first = sample(logits, noise(0, c.vocab_size), conditions.talker, methods.talker)  # [B]
    done = state.done | (first == c.eos_id) | (state.frame >= conditions.max_frames)
    embedded = model.talker.embed_codec(first)  # [B, D]
    codes, x = first[:, None], embedded
    if model.code_predictor is not None:
        with jax.named_scope("code_predictor"):
            # The noise of all codebooks at once: one small kernel per codebook would cost more.
            codebooks = jnp.arange(1, c.codebooks)
            vocab = model.code_predictor.config.vocab_size
            noises = jax.vmap(noise, (0, None))(codebooks, vocab)  # [Q-1, B, V]
            rest, total = model.code_predictor.generate(
                state.hidden,
                embedded,
                lambda logits, codebook: sample(
                    logits, noises[codebook - 1], conditions.predictor, methods.predictor
                ),
            )
        codes, x = jnp.concatenate([codes, rest], axis=1), embedded + total  # [B, Q], [B, D]
    broken = ~done & jnp.any(codes == NOT_FINITE, axis=1)  # [B]
    ended = done | broken
    with jax.named_scope("talker"):
        rows = jnp.arange(x.shape[0])
        at = jnp.minimum(state.frame, conditions.text.shape[1] - 1)
        has_text = (state.frame < conditions.text_length)[:, None]
        x = x + jnp.where(has_text, conditions.text[rows, at], conditions.pad)
        y, talker = model.talker.step(x[:, None], state.talker)  # [B, 1, D]
    new = GenerationState(
        talker=talker,
        hidden=y[:, 0],
        seen=state.seen.at[rows, first].set(True),
        frame=state.frame + ~ended,
        done=ended,
    )
    codes = jnp.where(broken[:, None], NOT_FINITE, codes)
    return jnp.where(done[:, None], -1, codes), new
