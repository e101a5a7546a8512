"""The delay pattern: codebook q of a frame is predicted q steps of the talker after codebook 0.

A step of the talker predicts codebook 0 of the newest frame and codebook q of the frame q before,
all from one hidden state, and reads what it predicted (the delay pattern of MusicGen,
arXiv:2306.05284, section 2.1). So every code depends on all lower codebooks of its frame, through
the talker, and a frame is complete Q-1 steps after its first code. `delayed_frame_step` runs the
talker so far ahead that each call completes one frame: to its callers only the first frame takes
longer.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.generation.frame_parts import draw_first, frame_keys, text_beside
from qtts_jax.generation.residual_codes import residual_noise
from qtts_jax.generation.sampling import NOT_FINITE, SamplingPlan, sample_codebooks
from qtts_jax.generation.state import DecodeInputs, DelayState, GenerationState, PromptBatch
from qtts_jax.models.tts_model import TTSModel

# The end of an utterance whose end of speech was not drawn yet.
NO_END = np.iinfo(np.int32).max


def delayed(residual: jax.Array) -> jax.Array:
    """Residual codes [B, T, Q-1], codebook q moved q positions later; -1 where none arrives."""
    codebooks = residual.shape[-1]
    source = jnp.arange(residual.shape[1])[:, None] - jnp.arange(1, codebooks + 1)  # [T, Q-1]
    moved = residual[:, jnp.maximum(source, 0), jnp.arange(codebooks)]  # [B, T, Q-1]
    return jnp.where(source >= 0, moved, -1)


def begin_delay(prompt: PromptBatch) -> DelayState:
    """The state before the first frame: frames that end the prompt (a reference) are known.

    Args:
        prompt: not delayed.
    """
    rows, codebooks = prompt.residual.shape[0], prompt.residual.shape[2] + 1
    at = prompt.lengths[:, None] - jnp.arange(1, codebooks + 1)  # [B, Q], newest first
    known = prompt.residual[jnp.arange(rows)[:, None], jnp.maximum(at, 0)]  # [B, Q, Q-1]
    known = jnp.where((at >= 0)[..., None], known, -1)
    return DelayState(
        step=jnp.zeros((rows,), jnp.int32),
        end=jnp.full((rows,), NO_END, jnp.int32),
        # Codebook 0 of a reference frame is in the talker's cache and read by nothing else.
        frames=jnp.concatenate([jnp.full_like(known[..., :1], -1), known], axis=2),
    )


def delayed_frame_step(
    model: TTSModel, methods: SamplingPlan, conditions: DecodeInputs, state: GenerationState
) -> tuple[jax.Array, GenerationState]:
    """As `frame_step`, for the delay pattern."""
    codebooks = model.config.talker.codebooks

    def behind(state: GenerationState) -> jax.Array:
        """Rows [B] whose next frame is not complete."""
        delay = _delay(state)
        goes_on = ~state.done & (state.frame < jnp.minimum(delay.end, conditions.max_frames))
        return goes_on & (delay.step < state.frame + codebooks)

    state = jax.lax.while_loop(
        lambda state: jnp.any(behind(state)),
        lambda state: _talker_step(model, methods, conditions, state, behind(state)),
        state,
    )
    delay = _delay(state)
    codes = delay.frames[:, -1]  # [B, Q]
    done = state.done | (state.frame >= jnp.minimum(delay.end, conditions.max_frames))
    broken = ~done & jnp.any(codes == NOT_FINITE, axis=1)  # [B]
    ended = done | broken
    codes = jnp.where(broken[:, None], NOT_FINITE, codes)
    new = state._replace(frame=state.frame + ~ended, done=ended)
    return jnp.where(done[:, None], -1, codes), new


def _talker_step(
    model: TTSModel,
    methods: SamplingPlan,
    conditions: DecodeInputs,
    state: GenerationState,
    active: jax.Array,
) -> GenerationState:
    """One step of the talker in the rows that are `active` [B]; the others stay as they are."""
    predictor, delay = model.code_predictor, _delay(state)
    assert predictor is not None
    step = delay.step  # also the number of the newest frame
    first = draw_first(model, methods, conditions, state, step)  # [B]
    ends = first == model.config.talker.eos_id
    end = jnp.where(ends, jnp.minimum(delay.end, step), delay.end)
    last = jnp.minimum(end, conditions.max_frames)  # [B]
    spoken = step < last
    # After the end, the talker goes on only to complete the residual codebooks.
    embedded = model.talker.embed_codec(
        jnp.where(spoken, first, model.config.talker.eos_id)
    )  # [B, D]
    with jax.named_scope("code_predictor"):
        logits = predictor.at_once(state.hidden, embedded)  # [B, Q-1, V]
        noise = residual_noise(predictor, frame_keys(conditions, step))  # [Q-1, B, V]
        drawn = sample_codebooks(logits, noise, conditions.predictor, methods.predictor)
    # Frames newest first, one more than before: codebook q is that of the frame q before.
    newest = jnp.full_like(delay.frames[:, :1], -1)
    frames = jnp.concatenate([newest, delay.frames[:, :-1]], axis=1)  # [B, Q, Q]
    frames = frames.at[:, 0, 0].set(jnp.where(spoken, first, -1))
    ages = jnp.arange(1, frames.shape[1])
    number = step[:, None] - ages  # [B, Q-1]
    # Before the first frame are those of the reference.
    is_frame = (number >= 0) & (number < last[:, None])
    codes = jnp.where(is_frame, drawn, frames[:, ages, ages])  # [B, Q-1]
    frames = frames.at[:, ages, ages].set(codes)
    with jax.named_scope("talker"):
        x = embedded + predictor.embed(codes) + text_beside(conditions, step, spoken)
        y, talker = model.talker.step(x[:, None], state.talker)  # [B, 1, D]
    rows = jnp.arange(len(step))
    seen = state.seen.at[rows, first].set(True)
    # A row that waits keeps its position, so its next step overwrites what this one cached.
    position = jnp.where(active, talker.position, state.talker.position)
    return state._replace(
        talker=talker._replace(position=position),
        hidden=jnp.where(active[:, None], y[:, 0], state.hidden),
        seen=jnp.where((active & spoken)[:, None], seen, state.seen),
        delay=DelayState(
            step=step + active,
            end=jnp.where(active, end, delay.end),
            frames=jnp.where(active[:, None, None], frames, delay.frames),
        ),
    )


def _delay(state: GenerationState) -> DelayState:
    assert state.delay is not None
    return state.delay
