"""Jitted programs of streams: frames together with their 12 Hz audio, or frames alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from qtts_jax.configs.tokenizer_12hz import Quirks12Hz, Tokenizer12HzConfig
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import Params, abstract, bind, matmul_precision
from qtts_jax.generation.loops import run_frames
from qtts_jax.generation.sampling import SamplingPlan
from qtts_jax.generation.state import DecodeInputs, GenerationState
from qtts_jax.models.tokenizer_12hz import DecoderState
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.speech_tokenizer.programs_12hz import programs_12hz


@functools.lru_cache(maxsize=16)
def frames_and_audio_program(config: TTSConfig, speech: Tokenizer12HzConfig) -> Any:
    """Frames and their 12 Hz audio in one device program, so that a chunk is one dispatch."""
    talker, _ = abstract(TTSModel, config)
    decoder = programs_12hz(speech, Quirks12Hz()).decoder

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
        with matmul_precision(params):
            # codes [B, frames, Q]
            codes, state = run_frames(bind(talker, params), methods, conditions, state, frames)
        with matmul_precision(decoder_params), jax.named_scope("codec"):
            # Frames after the end of speech are -1; they are decoded as code 0 and dropped later.
            wave, audio = bind(decoder, decoder_params).step(jnp.maximum(codes, 0), audio)
        return codes, wave.astype(jnp.float32), state, audio

    return jax.jit(run, static_argnames=("methods", "frames"), donate_argnames=("state", "audio"))


@functools.lru_cache(maxsize=16)
def frames_program(config: TTSConfig) -> Callable[..., tuple[jax.Array, GenerationState]]:
    """Frames alone; see `loops.run_frames`."""
    talker, _ = abstract(TTSModel, config)

    def run(
        params: Params,
        conditions: DecodeInputs,
        state: GenerationState,
        *,
        methods: SamplingPlan,
        frames: int,
    ) -> tuple[jax.Array, GenerationState]:
        with matmul_precision(params):
            return run_frames(bind(talker, params), methods, conditions, state, frames)

    return jax.jit(run, static_argnames=("methods", "frames"), donate_argnames="state")
