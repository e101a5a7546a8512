"""Library of `post_train`: scored draws of every prompt, and pairs of the best and the worst.

A batch of draws is scored while the next one is spoken, and kept as soon as it has its rewards, so
that an interrupted session goes on with the batch after it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments import command
from qtts_jax.errors import DataError
from qtts_jax.generation.request import Request
from qtts_jax.io.atomic_files import write_whole
from qtts_jax.training.preference.groups import best_and_worst
from qtts_jax.training.preference.pair_files import write_pairs
from qtts_jax.training.preference.pairs import Take
from qtts_jax.tts.synthesis import Speech

SETTINGS = "settings.json"
Rewards = Callable[[Sequence[int], Sequence[Speech]], np.ndarray]
"""Rewards [N] of speech of the prompts with these numbers."""


@dataclass(frozen=True)
class Draws:
    """Speech of prompts, `samples` of each in a row, and its rewards [N] float64."""

    takes: list[Take]
    rewards: np.ndarray


def scored_draws(
    speak: Callable[[Sequence[Request]], list[Speech]],
    requests: Sequence[Request],
    samples: int,
    rewards: Rewards,
    rows: int,
    kept: Path,
    settings: Mapping[str, Any],
) -> Draws:
    """Draws of all requests, those of earlier sessions from a folder.

    Args:
        requests: `samples` of each prompt in a row, with their seeds.
        rows: requests at once, a file each.
        kept: folder of the files.
        settings: all that the draws depend on, as JSON has it.

    Raises:
        DataError: the folder has draws of other settings.
    """
    _claim(kept, dict(settings) | {"rows": rows, "samples": samples})
    files = [kept / f"{first:07d}.npz" for first in range(0, len(requests), rows)]

    def keep(number: int, spoken: list[Speech]) -> None:
        places = range(number * rows, number * rows + len(spoken))
        codes = [s.codes.reshape(len(s.codes), -1) for s in spoken]
        content = io.BytesIO()
        np.savez_compressed(
            content,
            codes=np.concatenate(codes),
            frames=np.asarray([len(each) for each in codes]),
            ended=np.asarray([s.ended for s in spoken]),
            rewards=rewards([place // samples for place in places], spoken),
        )
        write_whole(files[number], content.getvalue())

    scoring: Future[None] | None = None
    with ThreadPoolExecutor(1) as pool:
        for number, file in enumerate(tqdm(files, "draws", unit="batch")):
            if file.is_file():
                continue
            spoken = speak(requests[number * rows : (number + 1) * rows])
            if scoring is not None:
                scoring.result()
            scoring = pool.submit(keep, number, spoken)
        if scoring is not None:
            scoring.result()
    takes: list[Take] = []
    found = []
    for file in files:
        with np.load(file) as batch:
            ends = np.cumsum(batch["frames"])[:-1]
            pieces = np.split(batch["codes"], ends)
            takes += [Take(*each) for each in zip(pieces, batch["ended"].tolist(), strict=True)]
            found.append(batch["rewards"])
    return Draws(takes, np.concatenate(found))


def write_best_and_worst(
    directory: Path,
    prompts: Sequence[Mapping[str, str]],
    draws: Draws,
    least_margin: float,
    pairs: int,
) -> Path:
    """Write the best and worst draws of each prompt as a file of pairs.

    Args:
        directory: of that file and its codes.
        least_margin: least difference of their rewards.
        pairs: most of a prompt.

    Raises:
        DataError: no draws of a prompt differ enough.
    """
    samples = len(draws.takes) // len(prompts)
    places = best_and_worst(draws.rewards, samples, least_margin, pairs)
    if not places:
        raise DataError(
            f"no group has rewards that differ by {least_margin}; lower --least-margin, raise "
            "--temperature or give more prompts."
        )
    found = [
        (dict(prompts[best // samples]), draws.takes[best], draws.takes[worst])
        for best, worst in places
    ]
    return write_pairs(directory, found)


def _claim(kept: Path, settings: dict[str, Any]) -> None:
    """Make the folder, or check that its draws are of these settings."""
    file = kept / SETTINGS
    settings = json.loads(json.dumps(settings))
    if not file.is_file():
        kept.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(settings, indent=1).encode())
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    other = [name for name in settings if before.get(name) != settings[name]]
    if other:
        raise DataError(
            f"{kept} has draws of other settings ({', '.join(other)}); use another --out, or "
            "remove the folder to draw again."
        )


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.train.post_train"))
