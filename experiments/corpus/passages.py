"""Long clips from short ones: sentences of one voice, one after the other with natural pauses.

A talker that has read single sentences alone loses its place in a text of several; these clips of
10 to 29 s have the times of their words from those of their sentences.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.corpus.plan import SECONDS_PER_CHARACTER, Job, read_jobs
from experiments.corpus.split import corpus_split, digest
from experiments.corpus.synthesis.cpu_worker import RATE, write_audio
from qtts_jax.data.splits import TRAIN

FOLDER = "audio/passages"
ALIGNMENTS = "alignments.jsonl"
SHORTEST_SECONDS, LONGEST_SECONDS = 9.0, 29.0
# Beside the 0.1 s that each clip keeps at either end.
PAUSE_SECONDS = (0.0, 0.35)


class Passage(NamedTuple):
    """Sentences of one voice at one speed.

    Attributes:
        parts: jobs in the order in which they are spoken.
        pauses: seconds of silence between them.
    """

    parts: tuple[Job, ...]
    pauses: tuple[float, ...]

    @property
    def text(self) -> str:
        return " ".join(part["text"] for part in self.parts)

    @property
    def name(self) -> str:
        return f"passage-{self.parts[0]['voice']}-{digest(self.text):016x}"


def planned_passages(corpus: Path, hours: float = math.inf) -> Iterator[Passage]:
    """Passages of training sentences at the voice's own speed, voices in turn.

    A sentence is in one passage at most. What the plan takes for a clip's length is an estimate;
    `make` leaves out what is longer than `LONGEST_SECONDS`.
    """
    by_voice: dict[str, list[Job]] = defaultdict(list)
    jobs = (each for path in sorted((corpus / "jobs").glob("*.jsonl")) for each in read_jobs(path))
    for each in jobs:
        if each["speed"] == 1.0 and corpus_split(each["text"], each["voice"]) == TRAIN:
            by_voice[each["voice"]].append(each)
    queues = {voice: _groups(voice, parts) for voice, parts in by_voice.items()}
    seconds = 0.0
    while queues and seconds < 3600 * hours:
        for voice in list(queues):
            passage = next(queues[voice], None)
            if passage is None:
                del queues[voice]
            else:
                seconds += len(passage.text) * SECONDS_PER_CHARACTER
                yield passage


def _groups(voice: str, parts: Sequence[Job]) -> Iterator[Passage]:
    chance = random.Random(f"passages of {voice}")
    group: list[Job] = []
    goal = length = 0.0
    for part in parts:
        own = len(part["text"]) * SECONDS_PER_CHARACTER + 0.4
        if group and length + own > min(goal, 0.9 * LONGEST_SECONDS):
            if len(group) > 1:
                yield _passage(group, chance)
            group, length = [], 0.0
        if not group:
            goal = chance.uniform(SHORTEST_SECONDS + 2, 0.95 * LONGEST_SECONDS)
        group.append(part)
        length += own
    if len(group) > 1:
        yield _passage(group, chance)


def _passage(group: Sequence[Job], chance: random.Random) -> Passage:
    pauses = tuple(round(chance.uniform(*PAUSE_SECONDS), 3) for _ in group[1:])
    return Passage(tuple(group), pauses)


def make(corpus: Path, passage: Passage, aligned: Mapping[str, Any]) -> dict[str, Any] | None:
    """Write the clip of a passage and return its line of `alignments.jsonl`.

    None where a sentence has no clip, or all of them are too long or too short together.

    Args:
        aligned: lines of the `alignments.jsonl` of the sentences, by the name of the clip.
    """
    import soundfile

    waves: list[np.ndarray] = []
    anchors: list[list[float]] = []
    characters, seconds = 0, 0.0
    for part, pause in zip(passage.parts, (*passage.pauses, 0.0), strict=True):
        line = aligned.get(part["id"])
        path = corpus / "audio" / part["engine"] / f"{part['id']}.flac"
        if line is None or not line["alignment"] or not path.exists():
            return None
        anchors += [[characters + c, round(seconds + at, 3)] for c, at in line["alignment"]]
        wave, _ = soundfile.read(path, dtype="float32")
        waves += [wave, np.zeros(round(pause * RATE), np.float32)]
        characters += len(part["text"]) + 1
        seconds += (len(wave) + len(waves[-1])) / RATE
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        return None
    write_audio(corpus / FOLDER / f"{passage.name}.flac", np.concatenate(waves))
    return {"id": passage.name, "alignment": anchors, "seconds": round(seconds, 3)}


def make_passages(corpus: Path, hours: float, workers: int) -> int:
    """Make the passages that are missing in parallel processes; return how many were made."""
    aligned = {
        row["id"]: row
        for path in sorted((corpus / "audio").glob(f"*/{ALIGNMENTS}"))
        for row in map(json.loads, _whole_lines(path))
    }
    folder = corpus / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    lines = folder / ALIGNMENTS
    there = {json.loads(line)["id"] for line in _whole_lines(lines)}
    missing = [each for each in planned_passages(corpus, hours) if each.name not in there]
    count = 0
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn) as pool, open(lines, "a", encoding="utf-8") as out:
        waiting = [
            pool.submit(
                make,
                corpus,
                each,
                {part["id"]: aligned[part["id"]] for part in each.parts if part["id"] in aligned},
            )
            for each in missing
        ]
        for future in waiting:
            if (row := future.result()) is not None:
                out.write(json.dumps(row) + "\n")
                count += 1
    return count


def _whole_lines(path: Path) -> list[str]:
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith("\n")]


def passage_row(passage: Passage, row: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest fields of a passage, from the row of its first sentence."""
    sources = sorted({part["text_source"] for part in passage.parts})
    licences = sorted({part["text_licence"] for part in passage.parts})
    return {
        **row,
        "audio": f"{FOLDER}/{passage.name}.flac",
        "text": passage.text,
        "text_source": ", ".join(sources),
        "text_licence": ", ".join(licences),
        "split": TRAIN,
        "sentences": len(passage.parts),
    }
