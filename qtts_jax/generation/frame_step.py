"""One frame: codebook 0 from the talker, the other codebooks from the code predictor."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from qtts_jax.generation.delay import begin_delay, delayed, delayed_frame_step
from qtts_jax.generation.frame_parts import draw_first, frame_keys, text_beside
from qtts_jax.generation.residual_codes import residual_codes
from qtts_jax.generation.sampling import NOT_FINITE, SamplingPlan
from qtts_jax.generation.state import DecodeInputs, GenerationState, PromptBatch
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.modules.transformer import TransformerState

# Attention scores of a prefill at once (float32, 128 MiB; the softmax needs a few times that).
SCORES = 2**25
SHORTEST_PIECE = 32  # positions; shorter ones would leave an accelerator idle


def embed_prompt(model: TTSModel, prompt: PromptBatch) -> jax.Array:
    """Embed a prompt: the sum of the embeddings of its tracks, [B, T, D]."""
    x = model.talker.embed_text(prompt.text) + model.talker.embed_codec(prompt.codec)
    if model.code_predictor is not None:
        x = x + model.code_predictor.embed(prompt.residual)
    speaker = prompt.embedding.astype(x.dtype)[:, None]
    return x + jnp.where(prompt.speaker[..., None], speaker, 0)


def prefill(model: TTSModel, prompt: PromptBatch, capacity: int) -> GenerationState:
    """Run the prompts and return the state before frame 0.

    A prompt whose attention scores would be large is run in pieces of equal length, one after the
    other through the cache, so that memory grows with its length and not with the square of it.

    Args:
        capacity: positions of the caches, at least the padded prompt.
    """
    batch, positions = prompt.text.shape  # [B, T]
    c = model.config.talker
    delay = None
    if c.lag:
        delay = begin_delay(prompt)
        prompt = prompt._replace(residual=delayed(prompt.residual))
    piece = _piece_length(batch, positions, capacity, c.transformer.heads)
    dtype = model.talker.embed_codec(prompt.codec[:, :1]).dtype
    talker = model.talker.init_state(batch, dtype, capacity)
    rows = jnp.arange(batch)
    if piece == positions:
        y, talker = model.talker.step(embed_prompt(model, prompt), talker, prompt.lengths)
        hidden = y[rows, prompt.lengths - 1]  # [B, D]
    else:

        def step(
            carry: tuple[TransformerState, jax.Array], begin: jax.Array
        ) -> tuple[tuple[TransformerState, jax.Array], None]:
            talker, hidden = carry
            tracks = {
                name: jax.lax.dynamic_slice_in_dim(getattr(prompt, name), begin, piece, axis=1)
                for name in ("text", "codec", "residual", "speaker")
            }
            left = prompt.lengths - begin  # [B], at most 0 in rows that have ended
            x = embed_prompt(model, prompt._replace(**tracks))  # [B, P, D]
            y, talker = model.talker.step(x, talker, jnp.clip(left, 0, piece))  # [B, P, D]
            is_last = (left > 0) & (left <= piece)
            last = y[rows, jnp.clip(left - 1, 0, piece - 1)]  # [B, D]
            return (talker, jnp.where(is_last[:, None], last, hidden)), None

        hidden = jnp.zeros((batch, c.transformer.width), dtype)
        begins = jnp.arange(0, positions, piece)
        (talker, hidden), _ = jax.lax.scan(step, (talker, hidden), begins)
    return GenerationState(
        talker=talker,
        hidden=hidden,
        seen=jnp.zeros((batch, c.vocab_size), bool),
        frame=jnp.zeros((batch,), jnp.int32),
        done=jnp.zeros((batch,), bool),
        delay=delay,
    )


def _piece_length(batch: int, positions: int, capacity: int, heads: int) -> int:
    """The longest half, quarter, ... of the prompt whose attention scores stay below SCORES."""
    piece = positions
    while piece > SHORTEST_PIECE and piece % 2 == 0 and batch * heads * piece * capacity > SCORES:
        piece //= 2
    return piece


def frame_step(
    model: TTSModel, methods: SamplingPlan, conditions: DecodeInputs, state: GenerationState
) -> tuple[jax.Array, GenerationState]:
    """Generate one frame for every row that is not done.

    Returns:
        codes [B, Q] int32, all -1 in rows that are done (the end-of-speech token is no frame), all
        NOT_FINITE in rows that this frame ends because logits are NaN or infinite, and the new
        state.
    """
    if state.delay is not None:
        return delayed_frame_step(model, methods, conditions, state)
    first = draw_first(model, methods, conditions, state, state.frame)  # [B]
    done = (
        state.done | (first == model.config.talker.eos_id) | (state.frame >= conditions.max_frames)
    )
    embedded = model.talker.embed_codec(first)  # [B, D]
    codes, x = first[:, None], embedded
    if model.code_predictor is not None:
        with jax.named_scope("code_predictor"):
            rest, total = residual_codes(
                model.code_predictor,
                state.hidden,
                embedded,
                frame_keys(conditions, state.frame),
                conditions.predictor,
                methods.predictor,
                methods.draft_window,
            )
        codes, x = jnp.concatenate([codes, rest], axis=1), embedded + total  # [B, Q], [B, D]
    broken = ~done & jnp.any(codes == NOT_FINITE, axis=1)  # [B]
    ended = done | broken
    with jax.named_scope("talker"):
        x = x + text_beside(conditions, state.frame)
        y, talker = model.talker.step(x[:, None], state.talker)  # [B, 1, D]
    new = GenerationState(
        talker=talker,
        hidden=y[:, 0],
        seen=state.seen.at[jnp.arange(len(first)), first].set(True),
        frame=state.frame + ~ended,
        done=ended,
    )
    codes = jnp.where(broken[:, None], NOT_FINITE, codes)
    return jnp.where(done[:, None], -1, codes), new
