"""Which clips make up the batches of an epoch, and how each is laid out.

All choices of an epoch are drawn at once from (seed, epoch), so the length of every example is
known before it is made, and a batch depends on nothing but its number.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.data.dataset import Record
from qtts_jax.data.talker_examples import LayoutMix


class Choices(NamedTuple):
    """How the clips of an epoch are laid out; every field is [N].

    Attributes:
        clip: position of the clip in the selection.
        stream, tag, preset, voiceless, in_context: bool, as in `LayoutMix`.
        instruct: number of the instruction, -1 for none.
        reference: position of another clip of the speaker, -1 for none.
        place: float in [0, 1), where the mel of the reference begins.
    """

    clip: np.ndarray
    stream: np.ndarray
    tag: np.ndarray
    preset: np.ndarray
    voiceless: np.ndarray
    in_context: np.ndarray
    instruct: np.ndarray
    reference: np.ndarray
    place: np.ndarray


class PlannedBatch(NamedTuple):
    """Places of the clips of a batch among the epoch's choices, and its bucket."""

    places: np.ndarray
    bucket: int


class ClipTable(NamedTuple):
    """What the plan knows of the clips; arrays are [N].

    Attributes:
        text, reference_text, frames: lengths in ids and frames.
        references: for each clip the positions of the clips of its speaker that may be its
            reference, the clip itself perhaps among them.
        preset: the speaker is a preset of the model.
        tagged: the language is one of the model.
        dialect: the speaker's dialect is tagged even where the language is not.
        instructions: lengths of the instructions of each clip.
        opening: ids that open the assistant turn.
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
    opening: int
    cloning: bool


def repeated(records: Sequence[Record], times: int) -> np.ndarray:
    """Positions of the clips of an epoch, ascending: rare speakers' clips come `times` times.

    A speaker is rare with less than a hundredth of the clips: however few there are of most voices,
    they are heard beside a voice that has hours.
    """
    clips = Counter(record.speaker for record in records)
    count = [times if 100 * clips[r.speaker] < len(records) else 1 for r in records]
    return np.repeat(np.arange(len(records)), count)


def draw_choices(
    table: ClipTable, mix: LayoutMix, rng: np.random.Generator, clips: np.ndarray
) -> Choices:
    """Draw the layouts of clips [N] by their positions; an impossible choice is never kept."""
    count = len(clips)
    stream, tag, preset, voiceless, in_context, instruct = (
        rng.random((6, count)) < np.asarray(
            [mix.stream_text, mix.tag_language, mix.preset, mix.voiceless, mix.in_context,
             mix.instruct]
        )[:, None]
    )  # fmt: skip
    which, other, place = rng.random((3, count))
    reference = np.full(count, -1)
    for i, clip in enumerate(clips):
        # The clip itself is left out: `others` counts the rest of the group.
        group = table.references[clip]
        own = np.searchsorted(group, clip)
        inside = own < len(group) and group[own] == clip
        others = len(group) - inside
        if others and table.cloning:
            k = int(other[i] * others)
            reference[i] = group[k + (inside and k >= own)]
    cloned = reference >= 0
    preset = table.preset[clips] & (preset | ~cloned)
    voiceless |= ~(preset | cloned)
    described = np.asarray([len(table.instructions[clip]) for clip in clips])
    # Without a voice the description must decide, so it is there whenever there is one.
    wanted = (instruct | voiceless) & (described > 0)
    number = np.where(wanted, (which * described).astype(np.int64), -1)
    return Choices(
        clip=clips,
        stream=stream,
        tag=tag & table.tagged[clips],
        preset=preset & ~voiceless,
        voiceless=voiceless,
        in_context=in_context & cloned & ~preset & ~voiceless,
        instruct=number,
        reference=reference,
        place=place,
    )


def example_positions(table: ClipTable, c: Choices) -> np.ndarray:
    """Positions [N] of every example as `build_prompt` and `layout_example` lay it out."""
    instructed = np.asarray([
        table.instructions[clip][k] if k >= 0 else 0
        for clip, k in zip(c.clip, c.instruct, strict=True)
    ])  # fmt: skip
    tags = np.where(c.tag | (table.dialect[c.clip] & c.preset), 4, 3) + ~c.voiceless
    reference = np.where(c.in_context, table.frames[c.reference], 0)
    text = table.text[c.clip] + np.where(c.in_context, table.reference_text[c.reference], 0) + 1
    # The rows of tts_bos and of codec bos, and the text where it does not stream.
    rows = table.opening + tags + 2 + np.where(c.stream, 0, text)
    return instructed + rows + reference + table.frames[c.clip]


def plan_batches(
    positions: np.ndarray,
    buckets: Sequence[int],
    rows: Sequence[int],
    rng: np.random.Generator,
    together: int = 1,
) -> list[PlannedBatch]:
    """Batches in random order; every example is in one of them, some in two.

    What does not fill a batch of its bucket goes into the next larger one; the last batch is
    filled up with any examples.

    Args:
        positions: [N], none above the last bucket.
        buckets: ascending.
        rows: of a batch of each bucket.
        together: so many batches in a row, counted from the first, are of one bucket.
    """
    order = rng.permutation(len(positions))
    of = np.searchsorted(np.asarray(buckets), positions[order])
    runs: list[list[PlannedBatch]] = []
    left = order[:0]
    for bucket, size in enumerate(rows):
        clips = rng.permutation(np.concatenate([left, order[of == bucket]]))
        if bucket == len(rows) - 1 and len(clips) % (together * size):
            more = together * size - len(clips) % (together * size)
            clips = np.concatenate([clips, rng.integers(0, len(positions), more)])
        whole = len(clips) // (together * size) * together * size
        for run in clips[:whole].reshape(-1, together, size):
            runs.append([PlannedBatch(part, bucket) for part in run])
        left = clips[whole:]
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
    presets, dialects = dict(config.talker.speakers), dict(config.talker.dialects)
    names = [record.speaker.lower() for record in records]
    return (
        np.asarray([name in presets for name in names]),
        np.asarray([bool(dialects.get(name)) for name in names]),
    )
