"""Which clips of a manifest a task takes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from qtts_jax.data.manifest import LANGUAGES, Clip, read_manifest
from qtts_jax.data.splits import TRAIN, splits_of
from qtts_jax.errors import DataError, EvaluationError
from qtts_jax.evaluation.sample import evenly

KINDS_OF_SPEECH = ("all", "real", "synthetic")


def choose(
    manifest: Path,
    *,
    count: int | None = None,
    split: str = "test",
    speech: str = "all",
    language: str | None = None,
    min_seconds: float = 2.0,
    unseen: bool = False,
) -> list[Clip]:
    """Clips of a manifest, the same in every run, all speakers alike.

    Args:
        manifest: JSONL; see `read_manifest`. `synthetic` (true or false) is a field of it.
        count: most clips; None for all.
        split: only clips of this split; "all" for all. What the manifest puts into no split is
            where `prepare` puts it by default.
        speech: "real" or "synthetic" takes clips marked so; "all" takes all.
        language: full lower-case name; None for all.
        min_seconds: least length; judges of speakers and opinions need a second or two.
        unseen: only speakers without clips to train on; the manifest may be of held-out clips
            alone, and then marks speakers with other clips (`unseen_speaker`, true or false).

    Raises:
        DataError: a fault in the manifest.
        EvaluationError: no clip is left.
    """
    import soundfile

    clips = read_manifest(manifest, languages=LANGUAGES)
    found = splits_of([clip.text for clip in clips], [clip.split for clip in clips])
    splits = {clip.line: its for clip, its in zip(clips, found, strict=True)}
    if unseen:
        seen = {c.speaker for c in clips if splits[c.line] == TRAIN or not _marked_unseen(c)}
        clips = [c for c in clips if c.speaker not in seen]
    if split != "all":
        clips = [c for c in clips if splits[c.line] == split]
    if speech != "all":
        clips = [c for c in clips if c.extra.get("synthetic") is (speech == "synthetic")]
    if language is not None:
        clips = [c for c in clips if c.language == language]
    clips = [c for c in clips if soundfile.info(str(c.audio)).duration >= min_seconds]
    if not clips:
        kind = "" if speech == "all" else f"{speech} "
        who = " of unseen speakers" if unseen else ""
        raise EvaluationError(
            f"{manifest} has no {kind}clips{who} of at least {min_seconds:g} s, of the split "
            f"{split!r}, in {language or 'any language'}; choose others (--split all takes all)."
        )
    return by_turns(clips, len(clips) if count is None else count)


def _marked_unseen(clip: Clip) -> bool:
    """False where the manifest marks the speaker as one with more clips.

    Raises:
        DataError: the mark is neither true nor false.
    """
    said = clip.extra.get("unseen_speaker", True)
    if not isinstance(said, bool):
        raise DataError(
            f"line {clip.line} of the manifest has the unseen_speaker {said!r}; write true or "
            "false."
        )
    return said


def by_turns(clips: Sequence[Clip], count: int) -> list[Clip]:
    """At most `count` clips: one of each speaker, then the next, evenly spaced within a speaker."""
    speakers: dict[str, list[Clip]] = {}
    for clip in clips:
        speakers.setdefault(clip.speaker, []).append(clip)
    count = min(count, len(clips))
    each = 1
    while sum(min(each, len(own)) for own in speakers.values()) < count:
        each += 1
    turns = zip_longest(*(evenly(own, each) for own in speakers.values()))
    picked = [clip for turn in turns for clip in turn if clip is not None]
    return picked[:count]


def name_of(clip: Clip) -> str:
    """Name of a clip in reports."""
    return f"{clip.line}:{clip.audio.name}"
