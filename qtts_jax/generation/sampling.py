"""Logit processors and sampling, in the order of the official `generate` call.

Every setting is an array over the rows of a batch, so requests with different settings share one
compiled program. Parts that no row of a batch uses (sampling, a full sort) are not compiled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tts import RESERVED_CODEC_IDS, TalkerConfig
from qtts_jax.layers import dispatch
from qtts_jax.layers.kernels.top_k import select

# Generation never stops in its first two frames (the official min_new_tokens).
MIN_FRAMES = 2
# The id of a row whose logits are not finite.
NOT_FINITE = -2
# Up to this k, the threshold comes from a partial selection instead of a sort of the vocabulary.
PARTIAL_TOP_K = 64


class SamplerParams(NamedTuple):
    """Sampling settings of one head, each [B]; numpy on the host."""

    do_sample: Any
    temperature: Any
    top_k: Any
    top_p: Any


class HeadSampling(NamedTuple):
    """Parts of the sampler that at least one row needs, static (compiled in).

    Attributes:
        sample: some row samples.
        partial: every k is at most PARTIAL_TOP_K and no row uses top-p, so no sort is needed.
    """

    sample: bool
    partial: bool


class SamplingPlan(NamedTuple):
    """How a batch draws its codes, static.

    Attributes:
        talker, predictor: parts of the sampler that the two heads need.
        draft_window: positions of a pass of the code predictor; 1 for one codebook after the other.
    """

    talker: HeadSampling
    predictor: HeadSampling
    draft_window: int = 1


def batch_sampler(
    params: Sequence[SamplingParams], prefix: str = ""
) -> tuple[SamplerParams, HeadSampling]:
    """Stack the settings of one head (one `params` per row) and find the parts they need.

    Args:
        prefix: "" for the talker, "subtalker_" for the code predictor.
    """
    sample_name = "subtalker_dosample" if prefix else "do_sample"
    sample = np.asarray([getattr(p, sample_name) for p in params])
    # JSON and Python allow larger integers than the device; no vocabulary is that large.
    unlimited = np.iinfo(np.int32).max
    top_k = np.asarray([min(getattr(p, f"{prefix}top_k"), unlimited) for p in params], np.int32)
    top_p = np.asarray([getattr(p, f"{prefix}top_p") for p in params], np.float32)
    temperature = np.asarray([getattr(p, f"{prefix}temperature") for p in params], np.float32)
    # The logits of rows that do not sample are divided, too, so their temperature must be usable.
    temperature = np.where(sample, temperature, np.float32(1))
    partial = bool(np.all(~sample | ((top_k > 0) & (top_k <= PARTIAL_TOP_K) & (top_p >= 1.0))))
    method = HeadSampling(sample=bool(sample.any()), partial=partial)
    # 0 turns top-k off; `filter_logits` clamps to the size of the vocabulary.
    top_k = np.where(top_k > 0, top_k, unlimited)
    return SamplerParams(sample, temperature, top_k, top_p), method


def batch_samplers(
    params: Sequence[SamplingParams],
) -> tuple[SamplerParams, SamplerParams, SamplingPlan]:
    """`batch_sampler` of the talker and of the code predictor, and the static parts.

    The rows share the largest draft window among them, which changes no code.
    """
    talker, talker_method = batch_sampler(params)
    predictor, predictor_method = batch_sampler(params, "subtalker_")
    window = max(p.draft_window for p in params)
    return talker, predictor, SamplingPlan(talker_method, predictor_method, window)


def process_talker_logits(
    logits: jax.Array,
    config: TalkerConfig,
    seen: jax.Array,
    frame: jax.Array,
    repetition_penalty: jax.Array,
) -> jax.Array:
    """Apply repetition penalty, minimum length and suppressed ids to the logits of codebook 0.

    Args:
        logits: [B, V] float32.
        seen: [B, V] bool, ids generated so far (the prompt does not count).
        frame: [B] int, frames generated so far.
        repetition_penalty: [B] float32.
    """
    penalty = repetition_penalty[:, None]
    penalized = jnp.where(logits < 0, logits * penalty, logits / penalty)
    logits = jnp.where(seen, penalized, logits)
    ids = jnp.arange(config.vocab_size)
    eos = ids == config.eos_id
    reserved = (ids >= config.vocab_size - RESERVED_CODEC_IDS) & ~eos
    blocked = reserved | (eos & (frame[:, None] < MIN_FRAMES))
    return jnp.where(blocked, -jnp.inf, logits)


def filter_logits(logits: jax.Array, sampler: SamplerParams, method: HeadSampling) -> jax.Array:
    """Apply temperature, top-k (ties with the k-th value stay), then top-p; removed ids get -inf.

    Args:
        logits: [B, V] float32.
    """
    vocab = logits.shape[-1]
    logits = logits / sampler.temperature[:, None]
    top_k = jnp.minimum(sampler.top_k, vocab)[:, None] - 1
    if method.partial:
        # Greedy rows may have any k; their draw is not used.
        best = jax.lax.top_k(logits, min(PARTIAL_TOP_K, vocab))[0]
        kth = jnp.take_along_axis(best, jnp.minimum(top_k, best.shape[-1] - 1), axis=-1)
        return jnp.where(logits < kth, -jnp.inf, logits)
    order = jnp.argsort(logits, axis=-1)
    ascending = jnp.take_along_axis(logits, order, axis=-1)
    kth = jnp.take_along_axis(ascending, vocab - 1 - top_k, axis=-1)
    ascending = jnp.where(ascending < kth, -jnp.inf, ascending)
    cumulative = jnp.cumsum(jax.nn.softmax(ascending, axis=-1), axis=-1)
    top_p = sampler.top_p[:, None]
    removed = (cumulative <= 1 - top_p) & (top_p < 1)
    removed = removed.at[:, -1].set(False)
    ascending = jnp.where(removed, -jnp.inf, ascending)
    return jnp.put_along_axis(logits, order, ascending, axis=-1, inplace=False)


def gumbel_noise(keys: jax.Array, vocab: int) -> jax.Array:
    """Standard Gumbel noise [B, V] float32 of random keys [B].

    Every row has its own key, so that it does not depend on the rest of the batch.
    """
    return jax.vmap(lambda key: jax.random.gumbel(key, (vocab,), jnp.float32))(keys)


def sample(
    logits: jax.Array, noise: jax.Array, sampler: SamplerParams, method: HeadSampling
) -> jax.Array:
    """Pick one id per row: the argmax, or a draw from the filtered distribution (Gumbel-max).

    Args:
        logits: [B, V] float32.
        noise: [B, V] of `gumbel_noise`; unused when no row samples.

    Returns:
        [B] int32; NOT_FINITE in rows whose logits hold NaN or infinity, or -infinity alone, which
        the official sampler refuses too.
    """
    codes = _pick(logits, noise, sampler, method)
    # The largest logit is NaN if any is. A single -inf is a blocked id.
    return jnp.where(jnp.isfinite(jnp.max(logits, axis=-1)), codes, NOT_FINITE)


def sample_codebooks(
    logits: jax.Array, noise: jax.Array, sampler: SamplerParams, method: HeadSampling
) -> jax.Array:
    """`sample` for all codebooks at once.

    Args:
        logits: [B, Q-1, V] float32.
        noise: [Q-1, B, V].

    Returns:
        [B, Q-1] int32.
    """
    batch, codebooks, vocab = logits.shape
    # Codebooks become rows of one call: a call for each would be small kernels in sequence.
    repeated = SamplerParams(*(jnp.repeat(jnp.asarray(x), codebooks) for x in sampler))
    noise = noise.swapaxes(0, 1).reshape(-1, vocab)  # [B, V]
    codes = sample(logits.reshape(-1, vocab), noise, repeated, method)
    return codes.reshape(batch, codebooks)


def _pick(
    logits: jax.Array, noise: jax.Array, sampler: SamplerParams, method: HeadSampling
) -> jax.Array:
    """`sample` of finite logits, [B] int32."""
    if not method.sample:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    backend = dispatch.decode_backend(logits.shape[0], 1)
    if method.partial and backend != "plain":
        settings = (sampler.temperature, sampler.top_k, sampler.do_sample)
        codes: jax.Array = select(logits, noise, *settings, interpret=backend == "interpret")
        return codes
    best = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    drawn = jnp.argmax(filter_logits(logits, sampler, method) + noise, axis=-1).astype(jnp.int32)
    return jnp.where(sampler.do_sample, drawn, best)
