"""Library of `everyday`: texts read by Kokoro-82M, which most of nano's training speech is by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from experiments import command
from experiments.corpus.synthesis import cpu_worker
from experiments.corpus.synthesis.phonemes import LONGEST, KokoroPhonemes
from qtts_jax.errors import EvaluationError
from qtts_jax.tts.synthesis import Speech

NAME = "Kokoro-82M"
RATE = cpu_worker.RATE


def teacher_voices(models: Path, speakers: Sequence[str]) -> list[str]:
    """Those of the speakers that Kokoro has.

    Raises:
        EvaluationError: the folder has no voices, or none of these.
    """
    try:
        with np.load(models / "voices.npz") as voices:
            known = set(voices.files)
    except OSError as error:
        raise EvaluationError(
            f"{models} has no voices ({error}); `python -m experiments.corpus.build --steps fetch` "
            "writes them to CORPUS/models."
        ) from error
    found = [name for name in speakers if name in known]
    if not found:
        raise EvaluationError(f"Kokoro has none of the voices {', '.join(speakers)}.")
    return found


def teacher_speech(models: Path, texts: Sequence[str], voices: Sequence[str]) -> list[Speech]:
    """Speech of each text by a voice, at 24 kHz and the voice's own speed, without codes.

    Raises:
        EvaluationError: a text is longer than Kokoro reads at once.
    """
    speak, phonemes = cpu_worker.kokoro([models], threads=0), KokoroPhonemes()
    spoken = []
    for text, voice in zip(tqdm(texts, "speak", unit="clip"), voices, strict=True):
        (tokens,) = phonemes([text], "en-gb" if voice[0] == "b" else "en-us")
        if len(tokens) > LONGEST:
            raise EvaluationError(
                f"{text[:40]!r}... has {len(tokens)} phonemes, and Kokoro reads at most {LONGEST} "
                "at once; shorten the text."
            )
        wave = cpu_worker.trim(speak({"tokens": tokens, "voice": voice, "speed": 1.0}))
        spoken.append(Speech(np.zeros((0, 0), np.int32), wave, ended=True))
    return spoken


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.nano.everyday"))
