"""The verbs of voices that are described in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from qtts_jax.generation.request import Request
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.tts.official.arguments import rows_of, shared_options
from qtts_jax.tts.official.verbs import OfficialVerbs
from qtts_jax.tts.synthesis import Chunks
from qtts_jax.tts.voices import VoiceDesign


class VoiceDesignVerbs(OfficialVerbs):
    """Speech of described voices (VoiceDesign checkpoints)."""

    def generate_voice_design(
        self,
        text: str | list[str],
        instruct: str | list[str],
        language: str | list[str] | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: int | list[int] | None = None,
        decoder_voice: ReferenceVoice | list[ReferenceVoice] | None = None,
        normalize: bool | None = None,
        split: bool | None = None,
        **sampling: Any,
    ) -> tuple[list[np.ndarray], int]:
        """Speak with a voice that `instruct` describes; arguments as in `generate_custom_voice`."""
        rows = rows_of(
            text,
            instruct=instruct,
            language=language,
            seed=seed,
            decoder_voice=decoder_voice,
            non_streaming_mode=non_streaming_mode,
            normalize=normalize,
            split=split,
            sampling=sampling,
        )
        return self._waves([VoiceDesign(**row) for row in rows])

    def prepare_voice_design(
        self,
        text: str,
        instruct: str | None,
        language: str | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: int | None = None,
        decoder_voice: ReferenceVoice | None = None,
        normalize: bool | None = None,
        split: bool | None = None,
        **sampling: Any,
    ) -> Request:
        """Lay out one request for `synthesize`; arguments as in `generate_voice_design`."""
        options = shared_options(non_streaming_mode, normalize, split, sampling)
        return self.prepare(
            VoiceDesign(text, instruct, language, seed=seed, decoder_voice=decoder_voice, **options)
        )

    def stream_voice_design(
        self,
        text: str | Iterable[str],
        instruct: str,
        language: str | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: int | None = None,
        chunk_frames: Sequence[int] | None = None,
        decoder_voice: ReferenceVoice | None = None,
        normalize: bool | None = None,
        split: bool | None = None,
        **sampling: Any,
    ) -> Chunks:
        """`generate_voice_design` for one text, in chunks; see `QwenTTS.stream`."""
        options = shared_options(non_streaming_mode, normalize, split, sampling)
        request = VoiceDesign(
            text, instruct, language, seed=seed, decoder_voice=decoder_voice, **options
        )
        return self.stream(request, chunk_frames)
