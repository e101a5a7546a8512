"""Slopes of the flow at a time of its own for every row, for the flow-matching loss.

The path is a straight line from noise at time 0 to the mel spectrogram at time 1 (Lipman et al.
2023, arXiv:2210.02747, section 4.1 with the least deviation 0; Liu et al. 2022, arXiv:2209.03003),
which is the one that `models.tokenizer_25hz.flow` integrates: x(t) = (1 - t) noise + t mel, with
the slope mel - noise.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from qtts_jax.layers.stream_position import full_span
from qtts_jax.models.tokenizer_25hz.flow import Conditioning, Flow
from qtts_jax.modules.dit import TIME_SCALE, Modulation, time_frequencies


def row_time_features(times: jax.Array) -> jax.Array:
    """`modules.dit.time_features` of traced times [B] in [0, 1]: [B, 256] float32."""
    angles = TIME_SCALE * times.astype(jnp.float32)[:, None] * time_frequencies()
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def row_modulations(flow: Flow, times: jax.Array) -> Modulation:
    """Modulation of every row by its own time: layers [L, B, 6, D] and output [2, B, 1, D]."""
    every = flow.dit.modulations(row_time_features(times))
    return Modulation(
        jnp.swapaxes(every.layers, 0, 1), jnp.swapaxes(every.output, 0, 1)[:, :, None]
    )


def row_slopes(
    flow: Flow,
    x: jax.Array,
    times: jax.Array,
    codes: jax.Array,
    conditioning: Conditioning,
    conditioned: jax.Array,
    lengths: jax.Array,
) -> jax.Array:
    """The network's slope of every frame, each row with or without its conditions.

    Attention is that of `Flow.__call__`: all blocks in one step from a fresh state.

    Args:
        x: [B, F, M] frames between noise and mel, F = T * repeats.
        times: [B] float32 in [0, 1].
        codes: [B, T] int.
        conditioning: of `Flow.condition`.
        conditioned: [B] bool, rows with code, x-vector and reference; the others get the empty
            code and the empty reference that guidance uses.
        lengths: [B], real codes of each row.

    Returns:
        [B, F, M] float32, undefined behind a row's end.
    """
    c = flow.config
    batch, frames, _ = x.shape
    padded = ((0, 0), (0, -frames % c.block), (0, 0))
    embedded = jnp.repeat(flow.embed_codes(codes), c.repeats, axis=1)  # [B, F, D]
    both = flow.inputs(jnp.pad(x, padded), jnp.pad(embedded, padded), conditioning)
    rows = jnp.where(conditioned[:, None, None], both[:, 0], both[:, 1])  # [B, F', D]
    fresh = flow.dit.init_state(batch, rows.dtype, delayed=False)
    span = full_span(batch, frames, lengths * c.repeats)
    slopes, _ = flow.dit.step(rows, row_modulations(flow, times), fresh, span)
    return slopes[:, :frames].astype(jnp.float32)
