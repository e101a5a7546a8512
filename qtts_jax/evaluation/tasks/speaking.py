"""Requests in batches, and what came of them as samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtts_jax.data.manifest import Clip
from qtts_jax.errors import EvaluationError, RequestError
from qtts_jax.evaluation.sample import SAMPLE_RATE, Sample, load_mono_16k
from qtts_jax.evaluation.tasks.clips import name_of
from qtts_jax.generation.request import Request
from qtts_jax.tts.qwen_tts import QwenTTS
from qtts_jax.tts.synthesis import Speech


@dataclass(frozen=True)
class Speaking:
    """How a checkpoint is made to speak in an evaluation.

    Attributes:
        seed: of the first request; each has its own, so a clip is the same in any batch.
        seconds: longest utterance; what has not ended by then counts as without an end.
        batch: requests at once.
        sampling: settings other than the checkpoint's own.

    Raises:
        EvaluationError: `seconds` is no length.
    """

    seed: int = 0
    seconds: float = 20.0
    batch: int = 8
    sampling: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise EvaluationError(
                f"the longest utterance cannot be {self.seconds:g} s; name seconds above 0."
            )

    def options(self, tts: QwenTTS, index: int) -> dict[str, Any]:
        """Keyword arguments of the request of clip `index`."""
        return {
            **dict(self.sampling),
            "seed": self.seed + index,
            "max_new_tokens": self.limit(tts) + 1,
        }

    def limit(self, tts: QwenTTS) -> int:
        """Frames of the longest utterance."""
        return max(
            2, round(self.seconds * tts.sample_rate / tts.speech_tokenizer.samples_per_frame)
        )

    def speak(
        self, tts: QwenTTS, count: int, request: Callable[[int], Request]
    ) -> Iterator[Speech]:
        """Speak the requests 0 ... count - 1 in batches."""
        for start in range(0, count, self.batch):
            indices = range(start, min(start + self.batch, count))
            yield from tts.synthesize([request(i) for i in indices])


def mode_of(tts: QwenTTS, voices: Sequence[str]) -> str:
    """How a checkpoint is to speak texts: as what it is first, or like recordings that are named.

    Args:
        voices: paths of recordings, perhaps none.

    Raises:
        RequestError: recordings are named, and it copies no voices.
    """
    if not voices:
        return tts.mode
    if "voice_clone" not in tts.modes:
        raise RequestError(
            "this checkpoint does not speak like recordings (--ref-audio); take a Base checkpoint."
        )
    return "voice_clone"


def language_of(tts: QwenTTS, clip: Clip) -> str | None:
    """The language to request: that of the clip if the checkpoint has it, else automatic."""
    return clip.language if clip.language in tts.supported_languages else None


def spoken_sample(
    tts: QwenTTS,
    clip: Clip,
    speech: Speech,
    voice: np.ndarray | None = None,
    expected: np.ndarray | None = None,
) -> Sample:
    """What was spoken for the text of a clip.

    Args:
        voice: recording [T] at 16 kHz of the speaker wanted.
        expected: recording [T] at 16 kHz of the text by that speaker.
    """
    return Sample(
        name_of(clip),
        load_mono_16k((np.clip(speech.wave, -1, 1), tts.sample_rate)),
        clip.text,
        clip.language,
        voice=voice,
        seconds=len(speech.wave) / tts.sample_rate,
        expected_seconds=None if expected is None else len(expected) / SAMPLE_RATE,
        known={"no_eos": (float(not speech.ended), 1)},
    )


def recorded_samples(
    clips: Sequence[Clip], voices: Sequence[np.ndarray] | None = None
) -> Iterator[Sample]:
    """The recordings of clips themselves, with recordings of their speakers if given."""
    for i, clip in enumerate(clips):
        voice = None if voices is None else voices[i]
        yield Sample(
            name_of(clip), load_mono_16k(clip.audio), clip.text, clip.language, voice=voice
        )
