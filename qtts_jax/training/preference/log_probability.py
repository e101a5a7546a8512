"""Log-probabilities of given speech, as the sampler of generation would have drawn it.

The frames are the inputs (teacher forcing), so that one pass gives what generation computes frame
by frame. Penalty, blocked ids, temperature, top-k and top-p are those of `generation/sampling.py`.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.generation.sampling import (
    HeadSampling,
    SamplerParams,
    batch_sampler,
    filter_logits,
    process_talker_logits,
)
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.training.talker.full_sequence import AttentionKernel, Remat
from qtts_jax.training.talker.teacher_forcing import forced_hidden, predictor_logits

Books = Literal["first", "all"]


def speech_log_probs(
    model: TTSModel,
    batch: dict[str, jax.Array],
    sampling: SamplingParams,
    books: Books,
    *,
    remat: Remat = "none",
    attention: AttentionKernel = "auto",
    predictor_attention: AttentionKernel = "auto",
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of every code of the frames and of the end of speech.

    Args:
        batch: of `talker_examples.collate`.
        sampling: settings of the sampler; both heads sample, as far as `books` reads them.
        books: "first" for codebook 0, with the others as inputs only; "all" for every codebook.
        remat, attention, predictor_attention: see `run_stack`.

    Returns:
        float32 [B, N], 0 where there is no code, and bool [B, N], where there is one. N is F + 1
        (the codes of codebook 0, then the end of speech) and with all books F (Q - 1) more.
    """
    c, codes, frames = model.config.talker, batch["codes"], batch["frames"][:, None]
    rows, longest, _ = codes.shape  # [B, F, Q]
    hidden = forced_hidden(model, batch, remat=remat, attention=attention)  # [B, T, D]
    step = jnp.arange(longest + 1)
    at = batch["start"][:, None] + step
    row = jnp.arange(rows)[:, None]
    # `unique_indices` lets XLA avoid atomic adds in the gradient.
    hidden = hidden.at[row, at].get(mode="fill", fill_value=0, unique_indices=True)  # [B, F+1, D]
    ends = (step == frames) & batch["ends"][:, None]
    present = (step < frames) | ends  # [B, F+1]
    ids = jnp.where(ends, c.eos_id, jnp.pad(codes[..., 0], ((0, 0), (0, 1))))  # [B, F+1]
    with jax.named_scope("codebook_0"):
        logits = model.talker.codec_head(hidden).astype(jnp.float32)  # [B, F+1, V]
        logits = process_talker_logits(
            logits.reshape(-1, c.vocab_size),
            c,
            _seen(codes[..., 0], c.vocab_size, sampling).reshape(rows * (longest + 1), -1),
            jnp.tile(step, rows),
            jnp.full((rows * (longest + 1),), sampling.repetition_penalty, jnp.float32),
        )
        first = drawn_log_probs(logits, ids.reshape(-1), sampling).reshape(present.shape)
    found = jnp.where(present, first, 0)
    if books == "first" or model.code_predictor is None:
        return found, present
    with jax.named_scope("code_predictor"):
        embedded = model.talker.embed_codec(codes[..., 0])  # [B, F, D]
        logits = predictor_logits(
            model.code_predictor,
            hidden[:, :-1].reshape(rows * longest, -1),
            embedded.reshape(rows * longest, -1),
            codes[..., 1:].reshape(rows * longest, -1),
            remat,
            predictor_attention,
        )  # [B F, Q-1, V]
        rest = drawn_log_probs(
            logits.reshape(-1, logits.shape[-1]), codes[..., 1:].reshape(-1), sampling, "subtalker_"
        ).reshape(rows, longest, -1)
    inside = jnp.broadcast_to((step[:-1] < frames)[..., None], rest.shape)  # [B, F, Q-1]
    rest, inside = (x.reshape(rows, -1) for x in (jnp.where(inside, rest, 0), inside))
    return jnp.concatenate([found, rest], axis=1), jnp.concatenate([present, inside], axis=1)


def drawn_log_probs(
    logits: jax.Array, ids: jax.Array, sampling: SamplingParams, prefix: str = ""
) -> jax.Array:
    """Log-probability of each id under the distribution that the sampler draws from.

    An id is always among those that top-k and top-p keep: it was when it was drawn, and another
    model that ranks it lower gives it a finite log-probability all the same.

    Args:
        logits: [N, V] float32, -inf for blocked ids.
        ids: [N] int.
        prefix: of the settings of the head, see `batch_sampler`.

    Returns:
        [N] float32.
    """
    one, method = batch_sampler([sampling], prefix)
    sampler = SamplerParams(*(jnp.broadcast_to(x, ids.shape) for x in one))
    is_id = jnp.arange(logits.shape[-1]) == ids[:, None]  # [N, V]
    scaled = logits / sampler.temperature[:, None]
    kept = is_id | _kept(jax.lax.stop_gradient(logits), sampler, method)
    scaled = jnp.where(kept, scaled, -jnp.inf)
    chosen = jnp.sum(jnp.where(is_id, scaled, 0), axis=-1)
    return chosen - jax.nn.logsumexp(scaled, axis=-1)


def _kept(logits: jax.Array, sampler: SamplerParams, method: HeadSampling) -> jax.Array:
    return jnp.isfinite(filter_logits(logits, sampler, method))


def _seen(codes: jax.Array, vocab: int, sampling: SamplingParams) -> jax.Array:
    """The ids of codebook 0 in the frames before each step: bool [B, F+1, V].

    [B, F+1, 1] without a repetition penalty, which alone reads it.

    Args:
        codes: [B, F] int.
    """
    if sampling.repetition_penalty == 1.0:
        return jnp.zeros((codes.shape[0], codes.shape[1] + 1, 1), bool)
    said = jax.lax.cummax(jax.nn.one_hot(codes, vocab, dtype=jnp.int8), axis=1)  # [B, F, V]
    return jnp.pad(said, ((0, 0), (1, 0), (0, 0))) > 0
