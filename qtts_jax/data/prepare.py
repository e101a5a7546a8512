"""Prepares a manifest: every recording decoded once as a check, resampled, packed in shards."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from qtts_jax.data.dataset import FORMAT, INDEX, Dataset, to_int16
from qtts_jax.data.manifest import LANGUAGES, Clip, read_manifest
from qtts_jax.data.splits import HELD_OUT, SPLITS, splits_of
from qtts_jax.data.threads import in_order
from qtts_jax.errors import AudioError, CheckpointError, DataError
from qtts_jax.io.atomic_directory import require_replaceable
from qtts_jax.io.atomic_files import sweep, write_whole
from qtts_jax.io.audio import load_audio
from qtts_jax.text.bpe import TextTokenizer

# Shards end with the clip that fills them to this many bytes, well under 16 MiB.
SHARD_BYTES = 8 << 20
_PLAN = "plan.json"


class _Stored(NamedTuple):
    """A clip as it goes into a shard: an audio file, and its samples at the dataset's rate."""

    clip: Clip
    split: str
    content: bytes
    samples: int


def prepare(
    manifest: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    sample_rate: int = 24000,
    text_tokenizer: TextTokenizer | None = None,
    languages: Sequence[str] = LANGUAGES,
    held_out: float = HELD_OUT,
    keep: Sequence[str] = SPLITS,
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Dataset:
    """Make a dataset, or go on where an earlier call was stopped.

    Mono Ogg Opus stays as it is, byte for byte and at any rate (it is decoded and resampled at
    load), and so does mono FLAC of the wanted rate; everything else becomes 16-bit FLAC.

    Work is kept in `<directory>.unfinished`, which takes the name of `directory` at the end. A call
    that was killed, or found the disk full, goes on from there. A recording that cannot be used
    removes it: the manifest has to change, and its shards with it.

    Args:
        manifest: see `read_manifest`.
        sample_rate: that of the tokenizer, Hz, at least 1.
        text_tokenizer, languages: what texts and languages are checked by.
        held_out: share, from 0 to 1, of the texts without a split in the manifest that become the
            test split, and again the validation split (`splits_of`).
        keep: splits that go into the dataset; a machine that only trains needs no test clips.
        workers: threads; None for one a core.
        progress: show a bar.
        overwrite: replace an earlier dataset, and drop what an earlier call with another
            manifest has begun.
        shard_bytes: of the recordings of a shard.

    Raises:
        DataError: a fault of the manifest (see there) or of an argument, silence, or a dataset that
            is in the way.
        AudioError: a recording cannot be decoded; it is named with its line.
    """
    if sample_rate < 1:
        raise DataError(f"there is no sample rate of {sample_rate} Hz; give that of the tokenizer.")
    if not 0 <= held_out <= 1:
        raise DataError(f"held_out is a share from 0 to 1, and {held_out} is not; correct it.")
    manifest, destination = Path(manifest), Path(directory).absolute()
    if destination.is_symlink():
        destination = destination.resolve()
    _check_destination(destination, manifest, overwrite)
    clips = read_manifest(manifest, text_tokenizer=text_tokenizer, languages=languages)
    splits = splits_of([clip.text for clip in clips], [clip.split for clip in clips], held_out)
    kept = [(clip, split) for clip, split in zip(clips, splits, strict=True) if split in keep]
    left_out = dict(Counter(split for split in splits if split not in keep))
    if not kept:
        raise DataError(f"no clip of {manifest} is in the splits {list(keep)}; keep others.")
    partial = destination.with_name(f"{destination.name}.unfinished")
    plan = {
        "format": FORMAT,
        "manifest": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "sample_rate": sample_rate,
        "held_out": held_out,
        "left_out": left_out,
        "keep": list(keep),
        "shard_bytes": shard_bytes,
    }
    _begin(partial, plan, overwrite)
    shards, done = _finished_shards(partial)

    def store(item: tuple[Clip, str]) -> _Stored:
        return _store(*item, manifest, sample_rate)

    stored = in_order(store, kept[done:], workers)
    try:
        with tqdm(
            total=len(kept), initial=done, desc="prepare", unit="clip", disable=not progress
        ) as bar:
            for group in _groups(stored, shard_bytes):
                shards.append(_write_shard(partial, len(shards), group))
                bar.update(len(group))
    except (AudioError, DataError):
        shutil.rmtree(partial)
        raise
    about = {"format": FORMAT, "sample_rate": sample_rate, "clips": len(kept),
             "splits": dict(Counter(split for _, split in kept)), "left_out": left_out,
             "shards": shards}  # fmt: skip
    write_whole(partial / INDEX, json.dumps(about, indent=1).encode())
    _put(partial, destination)
    # Only now: without its plan an unfinished directory could not go on.
    (destination / _PLAN).unlink()
    return Dataset(destination)


def _check_destination(destination: Path, manifest: Path, overwrite: bool) -> None:
    """Refuse to replace what is no dataset, and a folder that holds the manifest."""
    try:
        require_replaceable(destination, overwrite, (INDEX,))
    except CheckpointError as error:
        raise DataError(str(error)) from error
    if destination in manifest.resolve().parents:
        raise DataError(f"{destination} holds {manifest}, which is read; choose another directory.")


def _begin(partial: Path, plan: dict[str, Any], overwrite: bool) -> None:
    """A directory to work in, empty or with shards of the same plan."""
    try:
        if partial.exists() and overwrite and not _same_plan(partial, plan):
            require_replaceable(partial, overwrite, (_PLAN,))
            shutil.rmtree(partial)
        if not partial.exists():
            partial.mkdir(parents=True)
            write_whole(partial / _PLAN, json.dumps(plan).encode())
    except OSError as error:
        raise DataError(f"{partial} cannot be written: {error}.") from error
    except CheckpointError as error:
        raise DataError(str(error)) from error
    if not _same_plan(partial, plan):
        raise DataError(
            f"{partial} was begun with another manifest or other settings; remove it, or overwrite."
        )
    sweep(partial)


def _same_plan(partial: Path, plan: dict[str, Any]) -> bool:
    path = partial / _PLAN
    return path.is_file() and json.loads(path.read_text()) == plan


def _finished_shards(partial: Path) -> tuple[list[dict[str, Any]], int]:
    """The finished shards, and their clips; the lines of a shard are written last."""
    shards: list[dict[str, Any]] = []
    done = 0
    while (lines := partial / f"{_name(len(shards))}.jsonl").is_file():
        done += lines.read_bytes().count(b"\n")
        shards.append(_describe_shard(partial, len(shards)))
    return shards, done


def _store(clip: Clip, split: str, manifest: Path, sample_rate: int) -> _Stored:
    import soundfile

    name = f"the recording of line {clip.line} of {manifest} ({clip.audio.name})"
    content = clip.audio.read_bytes()
    wave = load_audio(content, sample_rate, name=name)
    if not np.any(wave):
        raise DataError(f"{name} is digital silence; remove the line.")
    info = soundfile.info(io.BytesIO(content))
    compact = info.channels == 1 and (
        info.subtype == "OPUS" or (info.format == "FLAC" and info.samplerate == sample_rate)
    )
    if not compact:
        file = io.BytesIO()
        soundfile.write(file, to_int16(wave), sample_rate, format="FLAC", subtype="PCM_16")
        content = file.getvalue()
    return _Stored(clip, split, content, len(wave))


def _groups(stored: Iterator[_Stored], limit: int) -> Iterator[list[_Stored]]:
    group: list[_Stored] = []
    size = 0
    for item in stored:
        group.append(item)
        size += len(item.content)
        if size >= limit:
            yield group
            group, size = [], 0
    if group:
        yield group


def _write_shard(partial: Path, number: int, group: Sequence[_Stored]) -> dict[str, Any]:
    lines, offset = [], 0
    for item in group:
        clip, size = item.clip, len(item.content)
        lines.append({
            "offset": offset, "size": size, "samples": item.samples, "line": clip.line,
            "text": clip.text, "speaker": clip.speaker, "language": clip.language,
            "split": item.split, "instruction": clip.instruction,
            "extra": dict(clip.extra),
        })  # fmt: skip
        offset += size
    path = partial / _name(number)
    write_whole(path.with_suffix(".bin"), b"".join(item.content for item in group))
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_whole(path.with_suffix(".jsonl"), text.encode())
    return _describe_shard(partial, number)


def _describe_shard(partial: Path, number: int) -> dict[str, Any]:
    about: dict[str, Any] = {"name": _name(number)}
    for suffix in (".bin", ".jsonl"):
        content = (partial / about["name"]).with_suffix(suffix).read_bytes()
        about[suffix] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return about


def _name(number: int) -> str:
    return f"shard-{number:05d}"


def _put(partial: Path, destination: Path) -> None:
    """Give the finished directory its name; an earlier one is deleted only afterwards."""
    earlier = destination.with_name(f"{destination.name}.replaced")
    if destination.exists():
        shutil.rmtree(earlier, ignore_errors=True)
        os.replace(destination, earlier)
    os.replace(partial, destination)
    shutil.rmtree(earlier, ignore_errors=True)
