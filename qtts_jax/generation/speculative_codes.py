"""The residual codes of a frame by exact speculation: drafts by heads ahead, verified in one pass.

The code predictor reads its weights once for every residual codebook of a frame, although its heads
stand on one residual stream: head s + t on the output that gives codebook s predicts codebook s + t
without the t - 1 codes between. Such drafts are the inputs of one pass over a window of positions;
a draft is accepted while it equals the code that the pass samples there. Draft and sample use the
same Gumbel noise of (request, frame, codebook), so what is accepted is what the plain loop samples:
the codes are equal, not only their distribution. A pass over several positions may sum in another
order, so two codes whose scores are equal within the rounding of logits may change places, as they
may between batch sizes.

Speculative decoding with a draft model is of Leviathan et al., arXiv:2211.17192; sampling with
fixed Gumbel noise makes its accept-reject step a comparison.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qtts_jax.configs.tts import CodePredictorConfig
from qtts_jax.errors import RequestError
from qtts_jax.generation.sampling import HeadSampling, SamplerParams, sample_codebooks
from qtts_jax.models.code_predictor import CodePredictor
from qtts_jax.modules.transformer import TransformerState


def check_window(predictor: CodePredictorConfig | None, window: int) -> None:
    """Check that a model can draft the codes of a window.

    Args:
        predictor: of the model; None for a talker of one codebook.
        window: 1 for no drafts.

    Raises:
        RequestError: it cannot.
    """
    if window == 1:
        return
    if predictor is None:
        raise RequestError(
            f"draft_window is {window}, but this model (25 Hz) has no code predictor whose codes "
            "could be drafted; leave it at 1."
        )
    if predictor.pattern != "sequential":
        raise RequestError(
            f"draft_window is {window}, but a code predictor of the pattern {predictor.pattern!r} "
            "has nothing to draft, because it predicts all codebooks in one pass; leave it at 1."
        )
    most = predictor.codebooks - 1
    if window > most:
        raise RequestError(
            f"draft_window is {window}, but a frame of this model has {most} residual codes; "
            f"choose 1 to {most}."
        )


class SpeculativeCodes(NamedTuple):
    """Residual codes and their cost.

    Attributes:
        codes: [B, Q-1] int32.
        passes: [B] int32, passes of the predictor until a row was complete, the first included.
    """

    codes: jax.Array
    passes: jax.Array


class _Loop(NamedTuple):
    """Carry of the loop.

    Attributes:
        codes: [B, Q-1 + W] the accepted codes, then W-1 drafts, then unused places.
        accepted: [B] int32, how many codes are accepted.
        passes: [B] int32.
        state: of the transformer.
    """

    codes: jax.Array
    accepted: jax.Array
    passes: jax.Array
    state: TransformerState


def speculative_codes(
    predictor: CodePredictor,
    hidden: jax.Array,
    first: jax.Array,
    noise: jax.Array,
    sampler: SamplerParams,
    method: HeadSampling,
    window: int,
) -> SpeculativeCodes:
    """Codebooks 1..Q-1 of one frame in fewer passes than codebooks.

    Every row advances by the drafts that it accepts, and the loop ends with its slowest row.

    Args:
        hidden, first: [B, D talker] as in `CodePredictor.generate`.
        noise: [Q-1, B, V] of `residual_noise`.
        window: W, positions of a pass: the last accepted code and W - 1 drafts.
    """
    batch, codebooks = len(hidden), predictor.config.codebooks - 1
    rows, ahead = jnp.arange(batch)[:, None], jnp.arange(window)
    of_row = noise.swapaxes(0, 1)  # [B, Q-1, V]

    def draw(y: jax.Array, codebook: jax.Array) -> jax.Array:
        """Codes [B, n] of the codebooks [B, n] from outputs y [B, n, D] before the norm."""
        # Places beyond the last codebook have no head; what is drawn for them is not read.
        codebook = jnp.minimum(codebook, codebooks - 1)
        logits = predictor.logits_at(y, codebook)  # [B, n, V]
        own = jnp.take_along_axis(of_row, codebook[..., None], axis=1)  # [B, n, V]
        return sample_codebooks(logits, own.swapaxes(0, 1), sampler, method)

    def draft(y: jax.Array, accepted: jax.Array) -> jax.Array:
        """Drafts [B, W-1] of the next codebooks from the output y [B, D] of the last code."""
        repeated = jnp.broadcast_to(y[:, None], (batch, window - 1, y.shape[1]))
        return draw(repeated, accepted[:, None] + ahead[:-1])

    def unfinished(loop: _Loop) -> jax.Array:
        return jnp.any(loop.accepted < codebooks)

    def verify(loop: _Loop) -> _Loop:
        place = loop.accepted[:, None] + ahead  # [B, W], of the codes that this pass samples
        given = loop.codes[rows, place - 1]  # [B, W], the last accepted code and the drafts
        # The cache holds the talker's output, code 0 and every accepted code but the last; what
        # an earlier pass left behind its wrong drafts is overwritten before a query may see it.
        state = loop.state._replace(position=loop.accepted + 1)
        tables = jnp.minimum(place - 1, codebooks - 1)
        y, state = predictor.extend(given, tables, state)  # [B, W, D]
        sampled = draw(y, place)  # [B, W]
        right = jnp.cumprod(sampled[:, :-1] == given[:, 1:], axis=1)  # [B, W-1]
        count = jnp.minimum(1 + jnp.sum(right, axis=1), codebooks - loop.accepted)  # [B], 0 if done
        accepted = loop.accepted + count
        codes = loop.codes.at[rows, place].set(sampled)
        y = y[jnp.arange(batch), jnp.maximum(count - 1, 0)]  # [B, D]
        codes = codes.at[rows, accepted[:, None] + ahead[:-1]].set(draft(y, accepted))
        return _Loop(codes, accepted, loop.passes + (count > 0), state)

    y, state = predictor.begin(hidden, first, codebooks + window)
    # From here on each row has a position of its own.
    state = state._replace(position=jnp.broadcast_to(state.position, (batch,)))
    every = jnp.broadcast_to(ahead, (batch, window))
    begun = draw(jnp.broadcast_to(y[:, None], (batch, window, y.shape[1])), every)  # [B, W]
    one = jnp.ones((batch,), jnp.int32)
    codes = jnp.zeros((batch, codebooks + window), jnp.int32).at[:, :window].set(begun)
    end = jax.lax.while_loop(unfinished, verify, _Loop(codes, one, one, state))
    return SpeculativeCodes(end.codes[:, :codebooks], end.passes)
