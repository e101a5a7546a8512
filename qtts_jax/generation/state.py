"""Arrays of a running batch: its prompts, its fixed decode inputs and its per-frame state."""

from __future__ import annotations

from typing import NamedTuple

import jax

from qtts_jax.generation.sampling import SamplerParams
from qtts_jax.modules.transformer import TransformerState


class PromptBatch(NamedTuple):
    """Right-padded prompts of a batch (fields as in `Prompt`, with a leading B); numpy on the host.

    `lengths` [B] counts the real positions of each row; `embedding` is [B, D], zeros for none.
    """

    text: jax.Array
    codec: jax.Array
    residual: jax.Array
    speaker: jax.Array
    embedding: jax.Array
    lengths: jax.Array


class DecodeInputs(NamedTuple):
    """Inputs that stay fixed while a batch is decoded, batch first.

    Attributes:
        text: [B, S, D] embedded trailing text.
        text_length: [B] int32, its length so far.
        pad: [B, D] embedded tts_pad, the text track after the text.
        max_frames: [B] int32.
        keys: [B] random keys of the requests.
        talker, predictor: sampling settings of the two heads.
        repetition_penalty: [B] float32.
    """

    text: jax.Array
    text_length: jax.Array
    pad: jax.Array
    max_frames: jax.Array
    keys: jax.Array
    talker: SamplerParams
    predictor: SamplerParams
    repetition_penalty: jax.Array


class DelayState(NamedTuple):
    """What the delay pattern carries beside the talker's state, batch first.

    Attributes:
        step: [B] int32, steps of the talker after the prompt.
        end: [B] int32, the frame in whose place the end of speech was drawn; `NO_END` before.
        frames: [B, Q, Q] int32 codes of the last Q frames, newest first; -1 for those that are not
            predicted yet or do not exist.
    """

    step: jax.Array
    end: jax.Array
    frames: jax.Array


class GenerationState(NamedTuple):
    """State carried from frame to frame, batch first.

    Attributes:
        talker: key/value caches and positions.
        hidden: [B, D], the talker's output at the last position.
        seen: [B, V] bool, codebook-0 ids generated so far.
        frame: [B] int32, frames generated so far.
        done: [B] bool, ended by end of speech, by max_frames or by logits that are not finite.
        delay: of the delay pattern; None for the others.
    """

    talker: TransformerState
    hidden: jax.Array
    seen: jax.Array
    frame: jax.Array
    done: jax.Array
    delay: DelayState | None = None
