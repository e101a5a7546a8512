"""Runs every program that requests within the limits need, so that none is compiled later."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import jax
import numpy as np
from tqdm import tqdm

from qtts_jax.generation.prompt import Prompt
from qtts_jax.generation.request import Request
from qtts_jax.serving.prefill import Prefill
from qtts_jax.serving.row_group import RowGroup
from qtts_jax.serving.row_programs import Rows
from qtts_jax.serving.settings import at_least
from qtts_jax.serving.warmup_25hz import every_block_program
from qtts_jax.speech_tokenizer.batch_shapes import cover
from qtts_jax.speech_tokenizer.programs_12hz import BATCH_BLOCKS


def warm_up(prefill: Prefill) -> RowGroup:
    """Compile all programs, showing a progress bar.

    Returns:
        The running batch, empty.
    """
    settings = prefill.settings
    group = empty_group(prefill)
    prefilled: dict[object, Rows] = {}
    with tqdm(unit="program", desc="compiling") as bar:
        for size, rows in itertools.product(settings.prompt_sizes, settings.prefill_sizes):
            bar.set_postfix_str(f"{rows} prompts of {size}")
            made = jax.block_until_ready(prefill([_blank_request(prefill, size)] * rows))
            prefilled[rows, at_least(prefill.capacities, size)] = made
            bar.update()
        for name in group.every_program(settings.chunk_frames, list(prefilled.values())):
            bar.set_postfix_str(name)
            bar.update()
        most = settings.max_reference_seconds
        in_rows = prefill.audio_in_rows
        for name in _references(prefill) if in_rows else every_block_program(prefill.tts, most):
            bar.set_postfix_str(name)
            bar.update()
    return group


def empty_group(prefill: Prefill) -> RowGroup:
    """The running batch, empty."""
    return RowGroup(prefill, prefill([_blank_request(prefill, 1)]))


def _blank_request(prefill: Prefill, positions: int) -> Request:
    """A request of `positions` positions that generates no frame."""
    tts = prefill.tts
    ids = np.full(positions, tts.config.tts_pad_id, np.int32)
    prompt = Prompt(
        text=ids,
        codec=np.full_like(ids, -1),
        residual=np.full((positions, tts.config.talker.codebooks - 1), -1, np.int32),
        speaker=np.zeros(positions, bool),
        embedding=None,
        trailing=np.zeros(0, np.int32),
    )
    return Request(prompt, replace(tts.defaults, max_new_tokens=2), seed=0)


def _references(prefill: Prefill) -> Iterator[str]:
    """Run every program that 12 Hz references need; yields their names."""
    if "voice_clone" not in prefill.tts.modes:
        return
    yield "references"
    prefill.every_audio_program()
    for recording in _recordings(prefill):
        yield "references"
        prefill.tts.encode_references([recording], ["Words."], [False], [None])


def _recordings(prefill: Prefill) -> Iterator[tuple[np.ndarray, int]]:
    """Noise of lengths whose encoding runs every program of recordings up to the limit."""
    codec = prefill.tts.speech_tokenizer
    rate, samples = codec.input_sample_rate, codec.min_samples
    most = int(prefill.settings.max_reference_seconds * rate / samples)
    noise = 0.1 * np.random.default_rng(0).standard_normal((most + 1) * samples)
    sizes = BATCH_BLOCKS[1]
    seen: set[tuple[int, int]] = set()
    for frames in range(sizes[-1], most + 2):
        # A program of the encoder is a block at a capacity.
        blocks = cover(frames, sizes)
        capacity = 1 << (sum(blocks) - 1).bit_length()
        programs = {(block, capacity) for block in blocks}
        if not programs <= seen or frames == most + 1:
            seen |= programs
            yield noise[: frames * samples].astype(np.float32), rate
