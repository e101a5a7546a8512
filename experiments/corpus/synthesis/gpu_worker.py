"""Synthesise clips of Piper or Kokoro on a GPU, with the time of every word.

It makes the clips that `cpu_worker.py` makes, under the same names (PyTorch with a GPU, and package
onnx), and beside them `alignments.jsonl`: `{"id", "alignment", "seconds"}`, an alignment being
pairs of characters of the text and seconds of the clip. Processes resample, trim and write what
the GPU has said. Clips that are there are not made again; one whose line of `alignments.jsonl` was
not written is.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from experiments.corpus.synthesis.cpu_worker import (
    RATE,
    Job,
    end_cut_line,
    resample,
    trim_bounds,
    write_audio,
)
from experiments.corpus.synthesis.kokoro import KokoroVoice
from experiments.corpus.synthesis.piper import PiperVoice

ALIGNMENTS = "alignments.jsonl"


def finish(wave: np.ndarray, rate: int, anchors: list[list[float]], path: Path) -> dict[str, Any]:
    """Resample, trim and write a clip; its line of `alignments.jsonl`, and its seconds.

    Args:
        wave: float16 [T].
        rate: samples a second at which the voice is as it should be.
        anchors: pairs of characters and samples of `wave`.
    """
    clip = resample(wave.astype(np.float32), rate)
    first, last = trim_bounds(clip)
    write_audio(path, clip[first:last])
    length = (last - first) / RATE
    at = [(c, min(max(n / rate - first / RATE, 0.0), length)) for c, n in anchors]
    alignment = [[c, round(seconds, 3)] for c, seconds in at]
    return {"id": path.stem, "alignment": alignment, "seconds": round(length, 3)}


def voice_of(engine: str, models: Sequence[Path], device: str) -> PiperVoice | KokoroVoice:
    """The synthesiser that a job names.

    Raises:
        RuntimeError: a package is missing; says which.
    """
    try:
        return (KokoroVoice if engine == "kokoro" else PiperVoice)(models, device)
    except ImportError as error:
        raise RuntimeError(
            f"{engine} on {device} needs the packages torch and onnx ({error}); install them, or "
            "leave --device out."
        ) from error


def spoken(
    voice: PiperVoice | KokoroVoice, group: Sequence[Job]
) -> Iterator[tuple[Job, np.ndarray, np.ndarray]]:
    """Jobs with their waves [T], and where their tokens begin and the last ends, in samples."""
    for each, wave, samples in zip(group, *voice(group), strict=True):
        yield each, wave, np.concatenate([[0], samples.cumsum()])


def made(out: Path) -> set[str]:
    """The ids of the clips that are there with their alignment."""
    path = out / ALIGNMENTS
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    ids = {json.loads(line)["id"] for line in lines if line.endswith("\n")}
    return {clip for clip in ids if (out / f"{clip}.flac").exists()}


def run(
    jobs: Sequence[Job],
    models: Sequence[Path],
    out: Path,
    device: str,
    workers: int,
    seconds: float | None = None,
) -> Iterator[tuple[str, float]]:
    """Make the clips that are missing; yield (id, seconds) of each.

    Raises:
        RuntimeError: a package is missing, or a job has no anchors (those of an earlier plan).
    """
    out.mkdir(parents=True, exist_ok=True)
    end_cut_line(out / ALIGNMENTS)
    start, there = time.monotonic(), made(out)
    missing = [each for each in jobs if each["id"] not in there]
    if bare := next((each["id"] for each in missing if "anchors" not in each), None):
        raise RuntimeError(f"job {bare} has no anchors for its word times; run the step plan again")
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(workers, spawn) as pool,
        open(out / ALIGNMENTS, "a", encoding="utf-8") as lines,
    ):
        waiting: list[list[Future[dict[str, Any]]]] = []

        def written(most: int) -> Iterator[tuple[str, float]]:
            while len(waiting) > most:
                for future in waiting.pop(0):
                    row = future.result()
                    lines.write(json.dumps(row) + "\n")
                    yield row["id"], row["seconds"]

        for engine in sorted({each["engine"] for each in missing}):
            voice = voice_of(engine, models, device)
            for group in voice.batches([each for each in missing if each["engine"] == engine]):
                if seconds is not None and time.monotonic() - start > seconds:
                    break
                waiting.append([
                    pool.submit(
                        finish,
                        wave[: end[-1]],
                        round(voice.rate * each.get("pitch", 1.0)),
                        [[c, int(end[token + voice.lead])] for c, token in each["anchors"]],
                        out / f"{each['id']}.flac",
                    )
                    for each, wave, end in spoken(voice, group)
                ])  # fmt: skip
                yield from written(4)
        yield from written(0)
