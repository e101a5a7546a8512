"""The verbs of voices that are copied from a recording."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from qtts_jax.errors import RequestError
from qtts_jax.generation.request import Request
from qtts_jax.io.audio import AudioSource, fetch_url
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
from qtts_jax.tts.official.arguments import checked_texts, columns, rows_of, shared_options
from qtts_jax.tts.official.verbs import OfficialVerbs
from qtts_jax.tts.synthesis import Chunks
from qtts_jax.tts.voices import VoiceClone


class VoiceCloneVerbs(OfficialVerbs):
    """Speech of cloned voices (Base checkpoints)."""

    def generate_voice_clone(
        self,
        text: str | list[str],
        language: str | list[str] | None = None,
        ref_audio: AudioSource | list[AudioSource] | None = None,
        ref_text: str | list[str | None] | None = None,
        x_vector_only_mode: bool | list[bool] = False,
        voice_clone_prompt: VoiceClonePromptItem | list[VoiceClonePromptItem] | None = None,
        non_streaming_mode: bool = False,
        *,
        seed: int | list[int] | None = None,
        decoder_voice: ReferenceVoice | list[ReferenceVoice] | None = None,
        normalize: bool | None = None,
        split: bool | None = None,
        **sampling: Any,
    ) -> tuple[list[np.ndarray], int]:
        """Speak with the voice of a reference recording.

        Give either `ref_audio` (with `ref_text`, or with `x_vector_only_mode=True`) or the
        `voice_clone_prompt` made from it once by `create_voice_clone_prompt`. `decoder_voice`
        belongs to `ref_audio`, as there.

        Raises:
            RequestError: wrong checkpoint type, no reference, missing `ref_text`, unequal lengths.
            AudioError: the reference cannot be used.
            TextError: a text is empty.
        """
        checked_texts(text)
        items = self._clone_items(
            voice_clone_prompt, ref_audio, ref_text, x_vector_only_mode, decoder_voice
        )
        rows = rows_of(
            text,
            voice_clone_prompt=items,
            language=language,
            seed=seed,
            non_streaming_mode=non_streaming_mode,
            normalize=normalize,
            split=split,
            sampling=sampling,
        )
        return self._waves([VoiceClone(voice=row.pop("voice_clone_prompt"), **row) for row in rows])

    def prepare_voice_clone(
        self,
        text: str,
        voice: VoiceClonePromptItem,
        language: str | None = None,
        non_streaming_mode: bool = False,
        *,
        seed: int | None = None,
        normalize: bool | None = None,
        split: bool | None = None,
        **sampling: Any,
    ) -> Request:
        """Lay out one request for `synthesize`; arguments as in `generate_voice_clone`."""
        options = shared_options(non_streaming_mode, normalize, split, sampling)
        return self.prepare(VoiceClone(text, voice, language, seed=seed, **options))

    def stream_voice_clone(
        self,
        text: str | Iterable[str],
        language: str | None = None,
        ref_audio: AudioSource | None = None,
        ref_text: str | None = None,
        x_vector_only_mode: bool = False,
        voice_clone_prompt: VoiceClonePromptItem | list[VoiceClonePromptItem] | None = None,
        non_streaming_mode: bool = False,
        *,
        seed: int | None = None,
        chunk_frames: Sequence[int] | None = None,
        decoder_voice: ReferenceVoice | None = None,
        normalize: bool | None = None,
        split: bool | None = None,
        **sampling: Any,
    ) -> Chunks:
        """`generate_voice_clone` for one text, in chunks; see `QwenTTS.stream`."""
        items = self._clone_items(
            voice_clone_prompt, ref_audio, ref_text, x_vector_only_mode, decoder_voice
        )
        [[voice]] = columns(1, voice_clone_prompt=items)
        options = shared_options(non_streaming_mode, normalize, split, sampling)
        return self.stream(VoiceClone(text, voice, language, seed=seed, **options), chunk_frames)

    def create_voice_clone_prompt(
        self,
        ref_audio: AudioSource | list[AudioSource],
        ref_text: str | list[str | None] | None = None,
        x_vector_only_mode: bool | list[bool] = False,
        decoder_voice: ReferenceVoice | list[ReferenceVoice] | None = None,
        *,
        allow_url: bool = False,
    ) -> list[VoiceClonePromptItem]:
        """Encode reference recordings for `generate_voice_clone`.

        Args:
            ref_audio: a path, bytes, base64, a URL or `(array, rate)`; one or a list.
            ref_text: the transcript; needed unless `x_vector_only_mode`.
            x_vector_only_mode: copy only the timbre (x-vector), not the recording itself.
            decoder_voice: speaker features of a 25 Hz decoder; computed from the recording by
                default.
            allow_url: fetch recordings that are named by a URL.

        Raises:
            RequestError: wrong checkpoint type, missing `ref_text`, unequal lengths.
            AudioError: a recording is unreadable, empty, too short or holds NaN.
            CheckpointError: `decoder_voice` is needed and the checkpoint cannot compute it.
        """
        audios = ref_audio if isinstance(ref_audio, list) else [ref_audio]
        if allow_url:
            audios = [fetch_url(a, True, f"ref_audio {i}") for i, a in enumerate(audios)]
        texts, timbre_only, voices = columns(
            len(audios),
            ref_text=ref_text,
            x_vector_only_mode=x_vector_only_mode,
            decoder_voice=decoder_voice,
        )
        return self.encode_references(audios, texts, timbre_only, voices)

    def _clone_items(
        self,
        prompt: Any,
        ref_audio: Any,
        ref_text: Any,
        x_vector_only_mode: Any,
        decoder_voice: Any,
    ) -> VoiceClonePromptItem | list[VoiceClonePromptItem]:
        """The given voices, or those of the recordings."""
        if prompt is not None:
            if decoder_voice is not None:
                self.require("voice_clone")
                raise RequestError(
                    "decoder_voice belongs to the recording: give it to create_voice_clone_prompt."
                )
            return prompt
        if ref_audio is None:
            self.require("voice_clone")
            raise RequestError(
                "voice cloning needs a reference: give ref_audio or voice_clone_prompt."
            )
        return self.create_voice_clone_prompt(
            ref_audio, ref_text, x_vector_only_mode, decoder_voice
        )
