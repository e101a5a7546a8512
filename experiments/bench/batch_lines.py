"""Throughput of `qtts batch` on lines of mixed lengths: rows that refill, beside groups that wait.

    python -m experiments.bench.batch_lines --lines 1000 --out experiments/results/batch_lines.json

The same lines, one to six sentences long, are spoken twice, with the same seeds, which should give
the same codes; lines that got others are named:

- engine: `qtts batch`. A line takes the row of one that has ended.
- groups: calls of Python with as many requests as the batch has rows, in the order of the file,
  each until its longest has ended; `qtts batch` before it ran on the engine.

Reading and writing of files are not counted. Each way first speaks a quarter of the lines to
compile its programs."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command
from experiments.bench.serve_requests import TEXTS
from qtts_jax.cli.batch.lines import Line
from qtts_jax.errors import QTTSError
from qtts_jax.serving.whole import WholeSpeech
from qtts_jax.tts.qwen_tts import QwenTTS
from qtts_jax.tts.requests import Plan
from qtts_jax.tts.synthesis import Speech
from qtts_jax.tts.voices import CustomVoice

Planned = tuple[Line, Plan]
Speak = Callable[[Iterator[Planned]], Iterator[tuple[Line, Speech | Exception]]]
# Sentences of a line, each number with the same chance.
SENTENCES = (1, 1, 1, 1, 2, 2, 3, 6)


def planned(tts: QwenTTS, count: int, seed: int) -> list[Planned]:
    """Lines of random lengths."""
    draw, lines = random.Random(seed), []
    for number in range(count):
        text = " ".join(draw.choices(TEXTS, k=draw.choice(SENTENCES)))
        request = CustomVoice(text, tts.default_speaker, "english", seed=number)
        lines.append((Line(number, {"id": str(number)}), tts.plan(request)))
    return lines


def speak_groups(
    tts: QwenTTS, rows: int, plans: Iterator[Planned]
) -> Iterator[tuple[Line, Speech]]:
    """Speak lines in groups, each as one batch."""
    while group := list(itertools.islice(plans, rows)):
        speeches = tts.speak([plan for _, plan in group])
        yield from zip([line for line, _ in group], speeches, strict=True)


def timed(speak: Speak, lines: Sequence[Planned], rate: int) -> tuple[dict[str, Any], list[Any]]:
    """Figures of one way, and the codes of each line.

    Raises:
        QTTSError: a line failed.
    """
    list(speak(iter(lines[: len(lines) // 4])))
    begin, codes, seconds = time.perf_counter(), {}, 0.0
    for line, speech in speak(iter(lines)):
        if isinstance(speech, Exception):
            raise QTTSError(f"line {line.number} failed: {speech}")
        codes[line.number] = speech.codes
        seconds += len(speech.wave) / rate
    wall = time.perf_counter() - begin
    figures = {
        "seconds": round(wall, 1),
        "audio_s_per_s": round(seconds / wall, 2),
        "lines_per_s": round(len(lines) / wall, 2),
    }
    return figures, [codes[i] for i in range(len(lines))]


def differing_frame(one: np.ndarray, other: np.ndarray) -> int:
    """The first frame in which codes [F, Q] differ, or which one of them has not."""
    both = min(len(one), len(other))
    differ = np.flatnonzero((one[:both] != other[:both]).any(axis=1))
    return int(differ[0]) if len(differ) else both


def main() -> None:
    """Run both ways and write their figures."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--model", type=Path, help="converted checkpoint (default: nano)")
    parser.add_argument("--lines", type=int, default=200, help="number of lines")
    parser.add_argument("--batch-size", type=int, default=8, help="rows, or lines of a group")
    parser.add_argument("--seed", type=int, default=0, help="of the texts")
    parser.add_argument("--out", type=Path, help="JSON file (default: printed only)")
    args: argparse.Namespace = parser.parse_args()
    tts = QwenTTS.from_pretrained(args.model)
    lines = planned(tts, args.lines, args.seed)
    result: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "lines": args.lines,
        "batch_size": args.batch_size,
        "seed": args.seed,
    }
    ways: dict[str, Speak] = {
        "groups": partial(speak_groups, tts, args.batch_size),
        "engine": WholeSpeech[Line](tts, args.batch_size).speak,
    }
    codes = {}
    for name, speak in ways.items():
        load = os.getloadavg()[0]
        figures, codes[name] = timed(speak, lines, tts.sample_rate)
        result[name] = figures | {"load_before": round(load, 1)}
        print(json.dumps({name: result[name]}), flush=True)
    frames = [len(each) for each in codes["engine"]]
    result["frames_of_a_line"] = {"mean": float(np.mean(frames)), "most": max(frames)}
    others = {
        number: differing_frame(*pair)
        for number, pair in enumerate(zip(codes["engine"], codes["groups"], strict=True))
        if not np.array_equal(*pair)
    }
    result["first_other_frame_by_line"] = others
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    if others:
        names = ", ".join(map(str, others))
        raise QTTSError(f"the two ways gave different codes for {len(others)} lines: {names}.")


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
