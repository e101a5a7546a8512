"""What generation carries from frame to frame, and what stays fixed for a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from qtts_jax.generation.prompt import Prompt
from qtts_jax.generation.sampling import SamplerParams
from qtts_jax.modules.transformer import TransformerState


class PromptBatch(NamedTuple):
    """Right-padded prompts of a batch (fields as in `Prompt`, with a leading B); on the host numpy.

    `lengths` [B] counts the real positions of each row; `embedding` is [B, D], zeros for none.
    """

    text: jax.Array
    codec: jax.Array
    residual: jax.Array
    speaker: jax.Array
    embedding: jax.Array
    lengths: jax.Array


class DecodeInputs(NamedTuple):
    """Fixed during a decode call, batch first.

    Attributes:
        text: [B, S, D] embedded trailing text.
        text_length: [B] int32, how much of it is there.
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


class HostBatch(NamedTuple):
    """A batch of requests as the host hands it over (numpy), batch first.

    Attributes:
        prompt: the right-padded prompts.
        trailing: [B, S] int32 text ids after the prompt, -1 for none.
        trailing_length, max_frames: [B] int32.
        pad: [B] int32, the text id tts_pad.
        seeds: [B] uint32.
        talker, predictor, repetition_penalty: as in `DecodeInputs`.
    """

    prompt: PromptBatch
    trailing: Any
    trailing_length: Any
    pad: Any
    max_frames: Any
    seeds: Any
    talker: SamplerParams
    predictor: SamplerParams
    repetition_penalty: Any


class GenerationState(NamedTuple):
    """Carried from frame to frame, batch first.

    Attributes:
        talker: key/value caches and positions.
        hidden: [B, D], the talker's output at the last position.
        seen: [B, V] bool, codebook-0 ids generated so far.
        frame: [B] int32, frames generated so far.
        done: [B] bool, ended by end of speech or by max_frames.
    """

    talker: TransformerState
    hidden: jax.Array
    seen: jax.Array
    frame: jax.Array
    done: jax.Array


def stack_prompts(prompts: Sequence[Prompt], rows: int, positions: int, width: int) -> PromptBatch:
    """Pad prompts to `rows` x `positions`; surplus rows are silent and have length 1."""

    def pad(values: Sequence[np.ndarray], fill: object) -> Any:
        out = np.full((rows, positions, *values[0].shape[1:]), fill, values[0].dtype)
        for row, value in zip(out, values, strict=False):
            row[: len(value)] = value
        return out

    embedding: Any = np.zeros((rows, width), np.float32)
    lengths: Any = np.ones((rows,), np.int32)
    for i, p in enumerate(prompts):
        lengths[i] = len(p)
        if p.embedding is not None:
            embedding[i] = p.embedding
    return PromptBatch(
        text=pad([p.text for p in prompts], -1),
        codec=pad([p.codec for p in prompts], -1),
        residual=pad([p.residual for p in prompts], -1),
        speaker=pad([p.speaker for p in prompts], False),
        embedding=embedding,
        lengths=lengths,
    )
