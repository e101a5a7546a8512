"""The plan of an epoch: which clips make up its batches, and the layout of each.

All layouts of an epoch are drawn at once from (seed, epoch), so the length of every example is
known before it is made, and a batch depends on nothing but its number.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.data.dataset import Record
from qtts_jax.data.talker_layout import LayoutChoices, LayoutMix
from qtts_jax.generation.prompt import AUTO, prompt_positions, tags_language


class PlannedBatch(NamedTuple):
    """Numbers of a batch's examples [B] among the layouts of the epoch, and its bucket."""

    examples: np.ndarray
    bucket: int


class ClipTable(NamedTuple):
    """Lengths and voices of the clips, from which layouts are drawn and measured; arrays are [N].

    Attributes:
        text, reference_text, frames: lengths in ids and frames.
        references: for each clip the positions of the clips of its speaker that may be its
            reference, the clip itself perhaps among them.
        preset: the speaker is a preset of the model.
        tagged: the language is one of the model.
        dialect: the speaker's dialect is tagged even where the language is not.
        instructions: lengths of the instructions of each clip.
        role: ids that open the assistant turn.
        cloning: references can be used as voices.
    """

    text: np.ndarray
    reference_text: np.ndarray
    frames: np.ndarray
    references: list[np.ndarray]
    preset: np.ndarray
    tagged: np.ndarray
    dialect: np.ndarray
    instructions: list[np.ndarray]
    role: int
    cloning: bool


def repeated(records: Sequence[Record], times: int) -> np.ndarray:
    """Positions of the clips of an epoch, ascending: rare speakers' clips come `times` times.

    A speaker is rare with less than a hundredth of the clips. Without repeats a voice that has
    hours would leave the others hardly any part of an epoch.
    """
    clips = Counter(record.speaker for record in records)
    count = [times if 100 * clips[r.speaker] < len(records) else 1 for r in records]
    return np.repeat(np.arange(len(records)), count)


def draw_choices(
    table: ClipTable, mix: LayoutMix, rng: np.random.Generator, clips: np.ndarray
) -> LayoutChoices:
    """Draw the layouts of clips [N] by their positions, each one that its clip allows."""
    count = len(clips)
    stream_text, language_tag, preset, no_speaker, in_context, instruct = mix.draw(rng, count)
    instruction_draw, reference_draw, crop = rng.random((3, count))
    reference = np.full(count, -1)
    for i, clip in enumerate(clips):
        # The clip itself is left out: `others` counts the rest of the group.
        group = table.references[clip]
        own = np.searchsorted(group, clip)
        inside = own < len(group) and group[own] == clip
        others = len(group) - inside
        if others and table.cloning:
            k = int(reference_draw[i] * others)
            reference[i] = group[k + (inside and k >= own)]
    cloned = reference >= 0
    preset = table.preset[clips] & (preset | ~cloned)
    no_speaker |= ~(preset | cloned)
    preset &= ~no_speaker
    described = np.asarray([len(table.instructions[clip]) for clip in clips])
    # Without a voice the description must decide, so it is there whenever there is one.
    instruct = (instruct | no_speaker) & (described > 0)
    return LayoutChoices(
        stream_text=stream_text,
        language_tag=language_tag & table.tagged[clips],
        preset=preset,
        no_speaker=no_speaker,
        in_context=in_context & cloned & ~preset & ~no_speaker,
        instruct=instruct,
        clip=clips,
        instruction=np.where(instruct, (instruction_draw * described).astype(np.int64), -1),
        reference=reference,
        crop=crop,
    )


def example_positions(table: ClipTable, c: LayoutChoices) -> np.ndarray:
    """Positions [N] of every example: its prompt and its frames."""
    instruct = np.asarray([
        table.instructions[clip][k] if k >= 0 else 0
        for clip, k in zip(c.clip, c.instruction, strict=True)
    ])  # fmt: skip
    prompt = prompt_positions(
        role=table.role,
        text=table.text[c.clip],
        instruct=instruct,
        language_tag=c.language_tag | (table.dialect[c.clip] & c.preset),
        speaker=~c.no_speaker,
        reference_frames=np.where(c.in_context, table.frames[c.reference], 0),
        reference_text=table.reference_text[c.reference],
        stream_text=c.stream_text,
    )
    return prompt + table.frames[c.clip]


def longest_positions(table: ClipTable) -> np.ndarray:
    """Positions [N] of every clip in its longest layout without a reference recording."""
    prompt = prompt_positions(
        role=table.role,
        text=table.text,
        instruct=np.asarray([max(lengths, default=0) for lengths in table.instructions]),
        language_tag=True,
    )
    return prompt + table.frames


def plan_batches(
    positions: np.ndarray,
    buckets: Sequence[int],
    rows: Sequence[int],
    rng: np.random.Generator,
    batches_per_bucket_run: int = 1,
) -> list[PlannedBatch]:
    """Batches in random order; every example is in one of them, some in two.

    What does not fill a batch of its bucket goes into the next larger one; the last batch is
    filled up with any examples.

    Args:
        positions: [N], none above the last bucket.
        buckets: ascending.
        rows: of a batch of each bucket.
        batches_per_bucket_run: so many batches in a row, counted from the first, are of one bucket.
    """
    order = rng.permutation(len(positions))
    bucket_of = np.searchsorted(np.asarray(buckets), positions[order])
    runs: list[list[PlannedBatch]] = []
    left = order[:0]
    for bucket, size in enumerate(rows):
        chosen = rng.permutation(np.concatenate([left, order[bucket_of == bucket]]))
        per_run = batches_per_bucket_run * size
        if bucket == len(rows) - 1 and len(chosen) % per_run:
            more = per_run - len(chosen) % per_run
            chosen = np.concatenate([chosen, rng.integers(0, len(positions), more)])
        filled = len(chosen) // per_run * per_run
        for run in chosen[:filled].reshape(-1, batches_per_bucket_run, size):
            runs.append([PlannedBatch(part, bucket) for part in run])
        left = chosen[filled:]
    return [batch for i in rng.permutation(len(runs)) for batch in runs[i]]


def references_of(records: Sequence[Record], usable: Sequence[bool]) -> list[np.ndarray]:
    """For each clip the positions of the usable clips of its speaker, ascending."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, (record, ok) in enumerate(zip(records, usable, strict=True)):
        if ok:
            groups[record.speaker].append(i)
    arrays = {speaker: np.asarray(group) for speaker, group in groups.items()}
    none = np.zeros(0, np.int64)
    return [arrays.get(record.speaker, none) for record in records]


def speaker_flags(config: TTSConfig, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    """Which clips have a preset speaker, and which of those have a dialect."""
    presets = dict(config.talker.speakers)
    names = [record.speaker.lower() for record in records]
    return (
        np.asarray([name in presets for name in names]),
        np.asarray([tags_language(config.talker, AUTO, name) for name in names]),
    )
