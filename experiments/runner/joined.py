"""Library of the ablations: consecutive clips of a speaker joined into longer ones."""

from __future__ import annotations

import fcntl
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from experiments import command
from qtts_jax import data
from qtts_jax.data.dataset import to_int16
from qtts_jax.data.splits import TRAIN
from qtts_jax.data.threads import in_order
from qtts_jax.io.atomic_files import write_whole

PAUSE_SECONDS = 0.2


def joined(
    dataset: data.Dataset, count: int, directory: Path, indices: Sequence[int], split: str = TRAIN
) -> data.Dataset:
    """Clips of a dataset, each `count` of a speaker as one; made once.

    What is left of a speaker after the last whole group is a shorter group, so that no recording is
    lost; audio is joined by a pause, texts by a space.

    Args:
        directory: holds the recordings, their manifest and `dataset`.
        indices: numbers of the clips.
        split: of the joined clips.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # Runs of several seeds may prepare it at once.
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        prepared = directory / "dataset"
        if prepared.is_dir():
            return data.Dataset(prepared)
        return _join(dataset, count, directory, indices, split)


def _join(
    dataset: data.Dataset, count: int, directory: Path, indices: Sequence[int], split: str
) -> data.Dataset:
    """Make the recordings, their manifest and the prepared dataset."""
    speakers: dict[tuple[str, str], list[int]] = {}
    for i in indices:
        record = dataset.records[i]
        speakers.setdefault((record.speaker, record.language), []).append(i)
    groups = [
        clips[start : start + count]
        for clips in speakers.values()
        for start in range(0, len(clips), count)
    ]
    pause = np.zeros(round(PAUSE_SECONDS * dataset.sample_rate), np.float32)

    def join(numbered: tuple[int, list[int]]) -> dict[str, Any]:
        """Write the recording of a group; its line of the manifest."""
        number, group = numbered
        parts = [part for i in group for part in (pause, dataset.wave(i))][1:]
        records = [dataset.records[i] for i in group]
        file = io.BytesIO()
        soundfile.write(file, to_int16(np.concatenate(parts)), dataset.sample_rate,
                        format="FLAC", subtype="PCM_16")  # fmt: skip
        name = f"{number:06d}.flac"
        write_whole(directory / name, file.getvalue())
        line = {"audio": name, "text": " ".join(r.text for r in records),
                "speaker": records[0].speaker, "language": records[0].language,
                "split": split}  # fmt: skip
        if all("alignment" in r.extra for r in records):
            line["alignment"] = _alignment(records, dataset.sample_rate)
        return line

    lines = list(in_order(join, enumerate(groups), workers=None))
    manifest = directory / "manifest.jsonl"
    write_whole(manifest, "".join(json.dumps(line) + "\n" for line in lines).encode())
    return data.prepare(
        manifest,
        directory / "dataset",
        sample_rate=dataset.sample_rate,
        progress=False,
        overwrite=True,
    )


def _alignment(records: Sequence[data.Record], sample_rate: int) -> list[list[float]]:
    """The alignments of clips, one after the other, as one of the joined text and audio."""
    characters, seconds, out = 0, 0.0, []
    for record in records:
        out += [[characters + c, seconds + s] for c, s in record.extra["alignment"]]
        characters += len(record.text) + 1
        seconds += record.samples / sample_rate + PAUSE_SECONDS
    return out


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
