"""Streams 25 Hz codes that are on the host through the decoder, block by block.

Codes arrive in any portions; programs of one shape compute one block at a time.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.checks import is_whole_number
from qtts_jax.errors import RequestError
from qtts_jax.functional import Params
from qtts_jax.models.tokenizer_25hz.decoder import Decoder25HzState
from qtts_jax.models.tokenizer_25hz.flow import Conditioning
from qtts_jax.models.tokenizer_25hz.schedule import SWAY, Schedule, schedule
from qtts_jax.placement import fetch
from qtts_jax.speech_tokenizer.programs_25hz_decode import (
    GUIDANCE,
    STEPS,
    DecodePrograms,
    pad_time,
)


@dataclass(frozen=True)
class HostStreamState:
    """The state of a streamed decode; `step_host_stream` returns the next one.

    Attributes:
        schedule, guidance, look_ahead: as chosen at the start.
        conditioning: of the voices.
        state: decoder state on the device.
        codes, noise: [B, n] codes that do not fill a block yet, and their noise.
        received: codes so far.
        early: samples that the programs return before the first one of the signal.
        done: samples returned.
        finished: the final codes have been received.
    """

    schedule: Schedule
    guidance: float
    look_ahead: int | None
    conditioning: Conditioning
    state: Decoder25HzState
    codes: np.ndarray
    noise: np.ndarray | None
    received: int
    early: int
    done: int
    finished: bool


def open_host_stream(
    programs: DecodePrograms,
    params: Params,
    xvector: np.ndarray,
    reference: np.ndarray,
    reference_lengths: np.ndarray | None = None,
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    sway: float = SWAY,
    look_ahead: int | None = None,
) -> HostStreamState:
    """Start decoding B rows together.

    Args:
        xvector, reference: as for `decode_whole`.
        look_ahead: blocks that must have arrived after a block before it is finished. None for all
            that the attention reaches, which gives what `decode_whole` gives; a smaller number has
            less delay, but a block is then not conditioned on what follows later.

    Raises:
        ConfigError, RequestError: see `block_codes` and `schedule`; a negative look_ahead.
    """
    if look_ahead is not None and not is_whole_number(look_ahead, 0):
        raise RequestError(f"look_ahead is {look_ahead!r}: give 0 or more blocks, or None.")
    conditioning = programs.condition_padded(params, xvector, reference, reference_lengths)
    flow, batch = schedule(steps, sway), len(xvector)
    assert programs.block_codes  # raises where blocks do not hold whole codes
    return HostStreamState(
        schedule=flow,
        guidance=guidance,
        look_ahead=look_ahead,
        conditioning=conditioning,
        state=programs.init_state(params, batch, flow.slopes, look_ahead),
        codes=np.zeros((batch, 0), np.int32),
        noise=None,
        received=0,
        early=programs.module.delay(flow.slopes, look_ahead),
        done=0,
        finished=False,
    )


def step_host_stream(
    programs: DecodePrograms,
    params: Params,
    codes: np.ndarray,
    stream: HostStreamState,
    noise: np.ndarray | jax.Array,
    *,
    final: bool = False,
) -> tuple[np.ndarray, HostStreamState]:
    """Decode more codes: the samples of the blocks that they complete.

    Args:
        codes: [B, T] int, any T (0 is allowed).
        stream: donated, not to be used again.
        noise: [B, T * repeats, M] for these codes; or random keys [B], always the same.
        final: no codes follow; all remaining samples are returned.

    Returns:
        [B, n] float32, n of any size, and the stream after it.

    Raises:
        RequestError: the stream is finished already.
    """
    if stream.finished:
        raise RequestError("this stream has had its final codes: start a new one.")
    keyed = jnp.issubdtype(noise.dtype, jax.dtypes.prng_key)
    size, per_code = programs.block_codes, programs.config.samples_per_code
    received = stream.received + codes.shape[1]
    pending = np.concatenate([stream.codes, np.asarray(codes, np.int32)], axis=1)  # [B, n]
    if not keyed:
        noise = np.asarray(noise, np.float32)
        if stream.noise is not None:
            noise = np.concatenate([stream.noise, noise], axis=1)
    count = pending.shape[1] // size
    if final:
        # Samples still to be computed: those before the signal and those not returned yet.
        needed = stream.early + received * per_code - stream.done
        count = -(-needed // (size * per_code))
        pending = pad_time(pending, count * size)
        noise = programs.pad_noise(noise, pending.shape[1])
    length = received if final else programs.module.unbounded
    lengths = np.full(len(pending), length, np.int32)
    state, waves = stream.state, [np.zeros((len(pending), 0), np.float32)]
    for i in range(count):
        wave, state = programs.step_blocks(
            params,
            pending[:, i * size : (i + 1) * size],
            programs.cut_noise(noise, i * size, size),
            lengths,
            stream.conditioning,
            stream.schedule,
            np.float32(stream.guidance),
            state,
            stream.look_ahead,
        )
        waves.append(fetch(wave))
    wave = np.concatenate(waves, axis=1)  # [B, count * size * per_code]
    early = min(stream.early, wave.shape[1])
    wave = wave[:, early:][:, : received * per_code - stream.done]
    waiting = None if keyed else np.asarray(noise)[:, count * size * programs.config.dit.repeats :]
    return wave, dataclasses.replace(
        stream,
        state=state,
        codes=pending[:, count * size :],
        noise=waiting,
        received=received,
        early=stream.early - early,
        done=stream.done + wave.shape[1],
        finished=final,
    )
