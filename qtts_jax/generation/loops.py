"""Loops over frames that run wholly on the device, as pure functions of the model's parameters.

End of speech, sampling and the text track are handled inside the loop; the host only decides how
many frames to run next. `programs.py` compiles these functions.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from qtts_jax.generation.batch import HostBatch
from qtts_jax.generation.frame_step import frame_step, prefill
from qtts_jax.generation.sampling import SamplingPlan
from qtts_jax.generation.state import DecodeInputs, GenerationState
from qtts_jax.models.tts_model import TTSModel


def start(
    model: TTSModel, inputs: HostBatch, capacity: int
) -> tuple[GenerationState, DecodeInputs]:
    """Prefill the prompts and embed the text that trails them.

    Args:
        capacity: positions of the caches.
    """
    conditions = DecodeInputs(
        text=model.talker.embed_text(inputs.trailing),  # [B, S, D]
        text_length=inputs.trailing_length,
        pad=model.talker.embed_text(inputs.pad),  # [B, D]
        max_frames=inputs.max_frames,
        keys=jax.vmap(jax.random.key)(inputs.seeds),
        talker=inputs.talker,
        predictor=inputs.predictor,
        repetition_penalty=inputs.repetition_penalty,
    )
    return prefill(model, inputs.prompt, capacity), conditions


def run_frames(
    model: TTSModel,
    methods: SamplingPlan,
    conditions: DecodeInputs,
    state: GenerationState,
    frames: int,
) -> tuple[jax.Array, GenerationState]:
    """Run exactly `frames` (static) steps: codes [B, frames, Q], negative where a row has no frame.

    The trip count is known, so the host never waits for the device in between.
    """

    def body(state: GenerationState, _: None) -> tuple[GenerationState, jax.Array]:
        codes, state = frame_step(model, methods, conditions, state)
        return state, codes

    state, codes = jax.lax.scan(body, state, None, length=frames)  # [frames, B, Q]
    return jnp.swapaxes(codes, 0, 1), state


# Number of frames so far, codes, state.
Carry = tuple[jax.Array, jax.Array, GenerationState]


def run_until_done(
    model: TTSModel,
    methods: SamplingPlan,
    conditions: DecodeInputs,
    state: GenerationState,
    frames: int,
) -> tuple[jax.Array, GenerationState]:
    """Run steps until every row is done, at most `frames` (static): codes [B, frames, Q].

    Frames that were not run are -1; see `frame_step` for the others.
    """
    batch, codebooks = state.done.shape[0], model.config.talker.codebooks
    codes = jnp.full((batch, frames, codebooks), -1, jnp.int32)

    def unfinished(carry: Carry) -> jax.Array:
        i, _, state = carry
        return (i < frames) & ~jnp.all(state.done)

    def body(carry: Carry) -> Carry:
        i, codes, state = carry
        frame, state = frame_step(model, methods, conditions, state)  # [B, Q]
        return i + 1, jax.lax.dynamic_update_slice(codes, frame[:, None], (0, i, 0)), state

    _, codes, state = jax.lax.while_loop(unfinished, body, (jnp.int32(0), codes, state))
    return codes, state
