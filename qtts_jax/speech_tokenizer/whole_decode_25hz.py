"""Decodes whole utterances of the 25 Hz family, with the same result for any padding.

An utterance is decoded in one program whose length is one of a few; masks make the result that of
the unpadded codes. A longer one goes through the exact stream in large blocks, with the same
result.
"""

from __future__ import annotations

import jax
import numpy as np

from qtts_jax.functional import Params
from qtts_jax.models.tokenizer_25hz.flow import Conditioning
from qtts_jax.models.tokenizer_25hz.schedule import SWAY, Schedule, schedule
from qtts_jax.placement import fetch
from qtts_jax.speech_tokenizer.programs_25hz_decode import (
    GUIDANCE,
    STEPS,
    DecodePrograms,
    pad_time,
)

# Attention blocks of one whole decode. Rows on a device times blocks of one program are bounded,
# for memory.
BLOCKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
MAX_BATCH_BLOCKS = 256
# Blocks of one program where a decode is longer than any of these.
LONG_BLOCKS = 32


def decode_whole(
    programs: DecodePrograms,
    params: Params,
    codes: np.ndarray,
    lengths: np.ndarray,
    xvector: np.ndarray,
    reference: np.ndarray,
    noise: np.ndarray | jax.Array,
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    sway: float = SWAY,
    reference_lengths: np.ndarray | None = None,
) -> np.ndarray:
    """Samples of whole utterances, every row as if it were alone.

    The official code gives every row the `lengths` (and `reference_lengths`) of the longest, with
    code 0 and mel 0 after the end of shorter rows.

    Args:
        codes: [B, T] int; lengths: [B].
        xvector: [B, X]; reference: [B, Tm, M], `reference_lengths` [B].
        noise: [B, T * repeats, M], or random keys [B].
        steps: points of the solution, so steps - 1 network evaluations.

    Returns:
        [B, T * samples_per_code] float32; a row is undefined after its end.
    """
    codes = np.asarray(codes, np.int32)
    batch, total = codes.shape
    share = batch // programs.devices  # rows on a device
    dit = programs.config.dit
    conditioning = programs.condition_padded(params, xvector, reference, reference_lengths)
    flow = schedule(steps, sway)
    blocks = -(-total * dit.repeats // dit.block)
    possible = [n for n in BLOCKS if n >= blocks and n * share <= max(MAX_BATCH_BLOCKS, share)]
    if not possible and dit.block % dit.repeats == 0:
        size = min(LONG_BLOCKS, max(1, MAX_BATCH_BLOCKS // share))
        return _decode_long(
            programs, params, codes, lengths, conditioning, flow, guidance, noise, size
        )
    padded = -(-(possible or [blocks])[0] * dit.block // dit.repeats)
    wave = programs.decode(
        params,
        pad_time(codes, padded),
        programs.pad_noise(noise, padded),
        np.asarray(lengths, np.int32),
        conditioning,
        flow,
        np.float32(guidance),
    )
    return fetch(wave)[:, : total * programs.config.samples_per_code]


def _decode_long(
    programs: DecodePrograms,
    params: Params,
    codes: np.ndarray,
    lengths: np.ndarray,
    conditioning: Conditioning,
    flow: Schedule,
    guidance: float,
    noise: np.ndarray | jax.Array,
    blocks: int,
) -> np.ndarray:
    """`decode_whole` through the exact stream, so many `blocks` at a time."""
    batch, total = codes.shape
    size = blocks * programs.block_codes
    per_code = programs.config.samples_per_code
    delay = programs.module.delay(flow.slopes, None)
    count = -(-(total * per_code + delay) // (size * per_code))
    state = programs.init_state(params, batch, flow.slopes, None)
    codes, noise = pad_time(codes, count * size), programs.pad_noise(noise, count * size)
    waves = []
    for i in range(count):
        wave, state = programs.step_blocks(
            params,
            codes[:, i * size : (i + 1) * size],
            programs.cut_noise(noise, i * size, size),
            np.asarray(lengths, np.int32),
            conditioning,
            flow,
            np.float32(guidance),
            state,
            None,
        )
        waves.append(fetch(wave))
    return np.concatenate(waves, axis=1)[:, delay : delay + total * per_code]
