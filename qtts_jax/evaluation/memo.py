"""Cache of scores across runs, by the content of the sample.

A second run with another checkpoint does not score the recordings and baselines again, and an
interrupted run goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qtts_jax.errors import EvaluationError
from qtts_jax.evaluation.bootstrap import Score
from qtts_jax.evaluation.sample import Sample


class Memo:
    """A JSONL file of scores by the content of the sample.

    Args:
        path: of the file; None remembers nothing.

    Raises:
        EvaluationError: the file cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, dict[str, Score]] = {}
        if path is None or not path.is_file():
            return
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise EvaluationError(
                f"the scores in {path} cannot be read ({error}); remove it."
            ) from error
        for line in lines:
            try:
                entry = json.loads(line)
                self._known[entry["key"]] = {k: (v[0], v[1]) for k, v in entry["scores"].items()}
            except (json.JSONDecodeError, KeyError, TypeError, IndexError):
                continue  # half a line of a run that was killed, which is scored again

    def __call__(
        self, judge: str, score: Callable[[Sample], dict[str, Score]], sample: Sample
    ) -> dict[str, Score]:
        """The scores of a judge, from the file or, the first time, from `score`."""
        if self._path is None:
            return score(sample)
        key = f"{judge}: {digest(sample)}"
        if key not in self._known:
            self._known[key] = score(sample)
            entry = json.dumps({"key": key, "scores": self._known[key]})
            try:
                with open(self._path, "a", encoding="utf-8") as file:
                    file.write(f"{entry}\n")
            except OSError as error:
                raise EvaluationError(f"cannot write {self._path}: {error}.") from error
        return self._known[key]


def digest(sample: Sample) -> str:
    """Hash of everything that a score depends on."""
    content = hashlib.sha256()
    for wave in (sample.wave, sample.aligned, sample.voice):
        content.update(b"-" if wave is None else np.asarray(wave, np.float32).tobytes() + b"+")
    fields = (sample.text, sample.language, sample.seconds, sample.expected_seconds)
    content.update(json.dumps(fields).encode())
    return content.hexdigest()[:32]
