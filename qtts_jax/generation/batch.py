"""Stacks requests into arrays padded to a few bucket sizes, so that programs are reused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import RequestError
from qtts_jax.generation.prompt import Prompt
from qtts_jax.generation.request import Request
from qtts_jax.generation.sampling import SamplerParams, SamplingPlan, batch_samplers
from qtts_jax.generation.speculative_codes import check_window
from qtts_jax.generation.state import PromptBatch

MIN_PROMPT, MIN_TEXT, OPEN_TEXT = 32, 64, 1024


class HostBatch(NamedTuple):
    """Inputs of the prefill program (numpy), batch first.

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


def bucket(n: int, smallest: int, factor: int = 2) -> int:
    """The smallest multiple of `smallest` by a power of `factor` that is at least n."""
    while smallest < n:
        smallest *= factor
    return smallest


def host_batch(
    config: TTSConfig, requests: Sequence[Request], open_text: bool = False, multiple: int = 1
) -> tuple[HostBatch, SamplingPlan]:
    """Stack requests into padded arrays; the number of rows is `multiple` by a power of two.

    Padding rows repeat the sampling settings of the last request and generate no frame.

    Args:
        open_text: reserve space for trailing text that arrives later.
        multiple: rows that the devices need at least (`programs.Programs.row_multiple`).

    Raises:
        RequestError: there is no request, a prompt is longer than the model's context, or
            `draft_window` is not possible with this model.
    """
    if not requests:
        raise RequestError("the list of requests is empty; give at least one request.")
    prompts = [r.prompt for r in requests]
    lengths = [len(p.text) for p in prompts]
    longest = max(lengths)
    context = config.talker.context
    if longest >= context:
        raise RequestError(
            f"the prompt takes {longest} positions but the model's context is {context}; "
            "shorten the text, the instruction or the reference audio."
        )
    batch = bucket(len(requests), multiple)
    padding = batch - len(requests)
    sampling = [r.sampling for r in requests] + [requests[-1].sampling] * padding
    frames = [r.limit(context)[0] for r in requests]
    talker, predictor, methods = batch_samplers(sampling)
    if methods.draft_window > 1:
        check_window(config.talker.code_predictor, methods.draft_window)

    trailing_length = np.zeros((batch,), np.int32)
    trailing_length[: len(prompts)] = [len(p.trailing) for p in prompts]
    size = bucket(int(trailing_length.max()), OPEN_TEXT if open_text else MIN_TEXT)
    trailing = np.full((batch, size), -1, np.int32)  # [B, S]
    for row, p in zip(trailing, prompts, strict=False):
        row[: len(p.trailing)] = p.trailing
    positions, width = bucket(longest, MIN_PROMPT), config.talker.transformer.width
    inputs = HostBatch(
        prompt=stack_prompts(prompts, batch, positions, width),
        trailing=trailing,
        trailing_length=trailing_length,
        pad=np.full((batch,), config.tts_pad_id, np.int32),
        max_frames=np.asarray(frames + [0] * padding, np.int32),
        seeds=np.asarray([r.seed for r in requests] + [0] * padding, np.uint32),
        talker=talker,
        predictor=predictor,
        repetition_penalty=np.asarray([s.repetition_penalty for s in sampling], np.float32),
    )
    return inputs, methods


def stack_prompts(prompts: Sequence[Prompt], rows: int, positions: int, width: int) -> PromptBatch:
    """Right-pad prompts to `rows` x `positions`; padding rows are all -1 and have length 1.

    Args:
        width: of the x-vectors, D.
    """

    def pad(values: Sequence[np.ndarray], fill: object) -> Any:
        out = np.full((rows, positions, *values[0].shape[1:]), fill, values[0].dtype)
        for row, value in zip(out, values, strict=False):
            row[: len(value)] = value
        return out

    embedding: Any = np.zeros((rows, width), np.float32)
    lengths: Any = np.ones((rows,), np.int32)
    for i, p in enumerate(prompts):
        lengths[i] = len(p.text)
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
