"""Jitted programs of streams: frames together with their 12 Hz audio, or frames alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from qtts_jax.configs.tokenizer_12hz import Quirks12Hz, Tokenizer12HzConfig
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import Params, abstract, bind, matmul_precision
from qtts_jax.generation.loops import run_frames
from qtts_jax.generation.programs import over_rows
from qtts_jax.generation.sampling import SamplingPlan
from qtts_jax.generation.state import DecodeInputs, GenerationState
from qtts_jax.models.tokenizer_12hz import DecoderState
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.placement import per_shard
from qtts_jax.speech_tokenizer.programs_12hz import programs_12hz


@functools.lru_cache(maxsize=16)
def frames_and_audio_program(
    config: TTSConfig, speech: Tokenizer12HzConfig, mesh: Mesh | None = None
) -> Any:
    """Frames and their 12 Hz audio in one device program, so that a chunk is one dispatch.

    Args:
        mesh: devices that the parameters are on; None for a single one.
    """
    talker, _ = abstract(TTSModel, config)
    decoder = programs_12hz(speech, Quirks12Hz(), mesh).decoder

    def decode(
        params: Params, codes: jax.Array, audio: DecoderState
    ) -> tuple[jax.Array, DecoderState]:
        with matmul_precision(params), jax.named_scope("codec"):
            return bind(decoder, params).step(codes, audio)

    def run(
        params: Params,
        decoder_params: Params,
        conditions: DecodeInputs,
        state: GenerationState,
        audio: DecoderState,
        *,
        methods: SamplingPlan,
        frames: int,
    ) -> tuple[jax.Array, jax.Array, GenerationState, DecoderState]:
        generate = over_rows(_frames(talker, methods, frames), mesh)
        codes, state = generate(params, conditions, state)  # [B, frames, Q]
        # Frames after the end of speech are -1; they are decoded as code 0 and dropped later.
        wave, audio = per_shard(decode, mesh)(decoder_params, jnp.maximum(codes, 0), audio)
        return codes, wave.astype(jnp.float32), state, audio

    return jax.jit(run, static_argnames=("methods", "frames"), donate_argnames=("state", "audio"))


@functools.lru_cache(maxsize=16)
def frames_program(
    config: TTSConfig, mesh: Mesh | None = None
) -> Callable[..., tuple[jax.Array, GenerationState]]:
    """Frames alone; see `loops.run_frames`. `mesh` as in `frames_and_audio_program`."""
    talker, _ = abstract(TTSModel, config)

    def run(
        params: Params,
        conditions: DecodeInputs,
        state: GenerationState,
        *,
        methods: SamplingPlan,
        frames: int,
    ) -> tuple[jax.Array, GenerationState]:
        generate = over_rows(_frames(talker, methods, frames), mesh)
        out: tuple[jax.Array, GenerationState] = generate(params, conditions, state)
        return out

    return jax.jit(run, static_argnames=("methods", "frames"), donate_argnames="state")


def _frames(graphdef: nnx.GraphDef, methods: SamplingPlan, frames: int) -> Callable[..., Any]:
    """`loops.run_frames` as a function of parameters, conditions and state."""

    def generate(
        params: Params, conditions: DecodeInputs, state: GenerationState
    ) -> tuple[jax.Array, GenerationState]:
        with matmul_precision(params):
            return run_frames(bind(graphdef, params), methods, conditions, state, frames)

    return generate
