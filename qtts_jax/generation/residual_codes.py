"""The residual codes of one frame, in the order that the pattern of the code predictor sets."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from qtts_jax.generation.sampling import (
    HeadSampling,
    SamplerParams,
    gumbel_noise,
    sample,
    sample_codebooks,
)
from qtts_jax.generation.speculative_codes import speculative_codes
from qtts_jax.models.code_predictor import CodePredictor
from qtts_jax.models.code_predictor_kernel import Draw


def residual_codes(
    predictor: CodePredictor,
    hidden: jax.Array,
    first: jax.Array,
    frame_keys: jax.Array,
    sampler: SamplerParams,
    method: HeadSampling,
    draft_window: int = 1,
) -> tuple[jax.Array, jax.Array]:
    """Codebooks 1..Q-1 of one frame, and the sum of their embeddings.

    Args:
        hidden: [B, D talker], the talker's hidden state that gave codebook 0.
        first: [B, D talker], the embedding of codebook 0.
        frame_keys: [B] random keys of this frame of every request.
        draft_window: positions of a pass of the sequential pattern (`speculative_codes`); 1 for one
            codebook after the other. The codes are the same for every value.

    Returns:
        codes [B, Q-1] int32 and [B, D talker].
    """
    # The noise of all codebooks at once: one small kernel per codebook would cost more.
    noise = residual_noise(predictor, frame_keys)  # [Q-1, B, V]
    if draft_window > 1:
        codes = speculative_codes(
            predictor, hidden, first, noise, sampler, method, draft_window
        ).codes
        return codes, predictor.embed(codes)
    if len(hidden) == 1 and method.partial and predictor.has_kernel():
        draw = Draw(sampler.temperature, sampler.top_k, sampler.do_sample)
        codes = predictor.generate_by_kernel(hidden, first, noise[:, 0], draw)
        return codes, predictor.embed(codes)
    if predictor.config.pattern == "sequential":
        return predictor.generate(
            hidden,
            first,
            lambda logits, codebook: sample(logits, noise[codebook - 1], sampler, method),
        )
    codes = sample_codebooks(predictor.at_once(hidden, first), noise, sampler, method)
    return codes, predictor.embed(codes)


def residual_noise(predictor: CodePredictor, frame_keys: jax.Array) -> jax.Array:
    """Gumbel noise [Q-1, B, V] of every residual codebook; a request, a frame and a codebook
    determine it."""
    vocab = predictor.config.vocab_size

    def of_codebook(codebook: jax.Array) -> jax.Array:
        return gumbel_noise(codebook_keys(frame_keys, codebook), vocab)

    return jax.vmap(of_codebook)(jnp.arange(1, predictor.config.codebooks))


def codebook_keys(frame_keys: jax.Array, codebook: jax.Array | int) -> jax.Array:
    """The random keys [B] of one codebook from those of the frame."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(frame_keys, codebook)
