"""What all official verbs share: the conventions of their arguments, and waves with warnings."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from qtts_jax.generation.request import Request
from qtts_jax.io.audio import AudioSource
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
from qtts_jax.tts.synthesis import Chunks, Speech
from qtts_jax.tts.voices import VoiceRequest


class OfficialVerbs(ABC):
    """The `generate_`, `prepare_` and `stream_` verbs with the official arguments.

    Each kind of voice is a subclass, and `QwenTTS` is all of them. The `generate_` verbs take one
    text or a list and return `(list of float32 waves, sample rate)`; the `prepare_` verbs take one
    text, which is never split; the `stream_` verbs take one text, or an iterator of parts of it,
    and yield float32 chunks. Sampling arguments (`do_sample`, `temperature`, `top_k`, `top_p`,
    `repetition_penalty`, `subtalker_...`, `max_new_tokens`) mean what they mean there and default
    to the checkpoint's `generation_config.json`. `seed` is one number or one for each text.
    `normalize` and `split` are as in `voices.py`. Speech that was cut is reported by a warning;
    `QwenTTS.generate` gives `Speech.ended` instead.
    """

    sample_rate: int

    @abstractmethod
    def require(self, mode: str) -> None:
        """See `QwenTTS`."""

    @abstractmethod
    def prepare(self, request: VoiceRequest) -> Request:
        """See `QwenTTS`."""

    @abstractmethod
    def generate(self, requests: Sequence[VoiceRequest]) -> list[Speech]:
        """See `QwenTTS`."""

    @abstractmethod
    def stream(self, request: VoiceRequest, chunk_frames: Sequence[int] | None = None) -> Chunks:
        """See `QwenTTS`."""

    @abstractmethod
    def encode_references(
        self,
        audios: Sequence[AudioSource],
        texts: Sequence[str | None],
        x_vector_only: Sequence[bool],
        decoder_voices: Sequence[ReferenceVoice | None],
    ) -> list[VoiceClonePromptItem]:
        """See `QwenTTS`."""

    def _waves(self, requests: Sequence[VoiceRequest]) -> tuple[list[np.ndarray], int]:
        """The result of a `generate_` verb, whose caller is warned of speech that was cut."""
        speeches = self.generate(requests)
        for i, (request, speech) in enumerate(zip(requests, speeches, strict=True)):
            if not speech.ended:
                warnings.warn(_cut(i, len(requests), request, speech), stacklevel=3)
        return [speech.wave for speech in speeches], self.sample_rate


_REMEDIES = {
    "max_new_tokens": "raise max_new_tokens",
    "context": "shorten the text, the instruction or the reference",
    "guard": "it went on far longer than its text can take; try another seed, or give "
    "max_new_tokens to set the limit yourself",
}


def _cut(index: int, count: int, request: VoiceRequest, speech: Speech) -> str:
    """The sentence for speech that did not end."""
    which = f"the speech of text {index + 1} of {count}" if count > 1 else "the speech"
    text = str(request.text)
    beginning = f"{text[:40]}..." if len(text) > 43 else text
    reason = speech.stopped_by or "max_new_tokens"
    return (
        f"{which} ({beginning!r}) was cut by {reason} after {len(speech.codes)} frames: "
        f"{_REMEDIES[reason]}."
    )
