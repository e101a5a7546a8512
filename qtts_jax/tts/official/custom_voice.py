"""The verbs of preset speakers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from qtts_jax.generation.request import Request
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.tts.official.arguments import rows_of, shared_options
from qtts_jax.tts.official.verbs import OfficialVerbs
from qtts_jax.tts.synthesis import Chunks
from qtts_jax.tts.voices import CustomVoice


class CustomVoiceVerbs(OfficialVerbs):
    """Speech of preset speakers (CustomVoice checkpoints)."""

    def generate_custom_voice(
        self,
        text: str | list[str],
        speaker: str | list[str] | None,
        language: str | list[str] | None = None,
        instruct: str | list[str] | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: int | list[int] | None = None,
        decoder_voice: ReferenceVoice | list[ReferenceVoice] | None = None,
        normalize: bool | None = None,
        split: bool | None = None,
        **sampling: Any,
    ) -> tuple[list[np.ndarray], int]:
        """Speak with a preset speaker, optionally following an instruction.

        Args:
            text: one text or a list.
            speaker: a name of `supported_speakers`, any case; one or one for each text. None and
                "" are as in `CustomVoice`.
            language: a name of `supported_languages`; None is "auto".
            instruct: how to speak; None or "" for nothing. 0.6B checkpoints ignore it.
            non_streaming_mode: give the model all text before the first frame; False feeds it
                along with the frames.
            decoder_voice: for a 25 Hz decoder, instead of the speaker's own in the checkpoint.

        Raises:
            RequestError: wrong checkpoint type, unknown speaker or language, unequal lengths.
            TextError: a text is empty.
        """
        rows = rows_of(
            text,
            speaker=speaker,
            language=language,
            instruct=instruct,
            seed=seed,
            decoder_voice=decoder_voice,
            non_streaming_mode=non_streaming_mode,
            normalize=normalize,
            split=split,
            sampling=sampling,
        )
        return self._waves([CustomVoice(**row) for row in rows])

    def prepare_custom_voice(
        self,
        text: str,
        speaker: str | None,
        language: str | None = None,
        instruct: str | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: int | None = None,
        decoder_voice: ReferenceVoice | None = None,
        normalize: bool | None = None,
        split: bool | None = None,
        **sampling: Any,
    ) -> Request:
        """Lay out one request for `synthesize`; arguments as in `generate_custom_voice`."""
        options = shared_options(non_streaming_mode, normalize, split, sampling)
        return self.prepare(
            CustomVoice(
                text, speaker, language, instruct, seed=seed, decoder_voice=decoder_voice, **options
            )
        )

    def stream_custom_voice(
        self,
        text: str | Iterable[str],
        speaker: str | None,
        language: str | None = None,
        instruct: str | None = None,
        non_streaming_mode: bool = True,
        *,
        seed: int | None = None,
        chunk_frames: Sequence[int] | None = None,
        decoder_voice: ReferenceVoice | None = None,
        normalize: bool | None = None,
        split: bool | None = None,
        **sampling: Any,
    ) -> Chunks:
        """`generate_custom_voice` for one text, in chunks; see `QwenTTS.stream`.

        Args:
            text: a text, or an iterator of parts of it (words, tokens, any cut). Parts are fed
                along with the frames, so the voice starts before the text has ended, and the
                codes are those of the complete text with `non_streaming_mode=False`.
        """
        options = shared_options(non_streaming_mode, normalize, split, sampling)
        request = CustomVoice(
            text, speaker, language, instruct, seed=seed, decoder_voice=decoder_voice, **options
        )
        return self.stream(request, chunk_frames)
