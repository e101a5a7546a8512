"""The verbs of the official package, each a thin layer over the request objects of `voices.py`."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from qtts_jax.errors import RequestError
from qtts_jax.generation.request import Request
from qtts_jax.io.audio import AudioSource, fetch_url
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
from qtts_jax.tts.synthesis import Chunks, Speech
from qtts_jax.tts.voices import CustomVoice, VoiceClone, VoiceDesign, VoiceRequest


class OfficialVerbs(ABC):
    """The `generate_`, `prepare_` and `stream_` verbs with the official arguments.

    The `generate_` verbs take one text or a list and return `(list of float32 waves, sample
    rate)`; the `stream_` verbs take one text, or an iterator of parts of it, and yield float32
    chunks. Sampling arguments (`do_sample`, `temperature`, `top_k`, `top_p`,
    `repetition_penalty`, `subtalker_...`, `max_new_tokens`) mean what they mean there and default
    to the checkpoint's `generation_config.json`. `seed` is one number or one for each text.
    `normalize` and `split` are as in `voices.py`; a prepared request is never split. Speech that
    was cut is reported by a warning; `generate` gives `Speech.ended` instead.
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

    # ------------------------------------------------------------------ preset speakers

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
        rows = _rows(
            text,
            speaker=speaker,
            language=language,
            instruct=instruct,
            seed=seed,
            decoder_voice=decoder_voice,
        )
        return self._waves(
            [
                CustomVoice(
                    **r,
                    stream_text=not non_streaming_mode,
                    normalize=normalize,
                    split=split,
                    sampling=sampling,
                )
                for r in rows
            ]
        )

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
        return self.prepare(
            CustomVoice(
                text,
                speaker,
                language,
                instruct,
                stream_text=not non_streaming_mode,
                seed=seed,
                decoder_voice=decoder_voice,
                normalize=normalize,
                split=split,
                sampling=sampling,
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
        request = CustomVoice(
            text,
            speaker,
            language,
            instruct,
            stream_text=not non_streaming_mode,
            seed=seed,
            decoder_voice=decoder_voice,
            normalize=normalize,
            split=split,
            sampling=sampling,
        )
        return self.stream(request, chunk_frames)

    # ------------------------------------------------------------------ described voices

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
        rows = _rows(
            text, instruct=instruct, language=language, seed=seed, decoder_voice=decoder_voice
        )
        return self._waves(
            [
                VoiceDesign(
                    **r,
                    stream_text=not non_streaming_mode,
                    normalize=normalize,
                    split=split,
                    sampling=sampling,
                )
                for r in rows
            ]
        )

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
        return self.prepare(
            VoiceDesign(
                text,
                instruct,
                language,
                stream_text=not non_streaming_mode,
                seed=seed,
                decoder_voice=decoder_voice,
                normalize=normalize,
                split=split,
                sampling=sampling,
            )
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
        request = VoiceDesign(
            text,
            instruct,
            language,
            stream_text=not non_streaming_mode,
            seed=seed,
            decoder_voice=decoder_voice,
            normalize=normalize,
            split=split,
            sampling=sampling,
        )
        return self.stream(request, chunk_frames)

    # ------------------------------------------------------------------ cloned voices

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
        _texts(text)
        items = self._clone_items(
            voice_clone_prompt, ref_audio, ref_text, x_vector_only_mode, decoder_voice
        )
        rows = _rows(text, voice_clone_prompt=items, language=language, seed=seed)
        return self._waves(
            [
                VoiceClone(
                    voice=row.pop("voice_clone_prompt"),
                    stream_text=not non_streaming_mode,
                    normalize=normalize,
                    split=split,
                    sampling=sampling,
                    **row,
                )
                for row in rows
            ]
        )

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
        return self.prepare(
            VoiceClone(
                text,
                voice,
                language,
                stream_text=not non_streaming_mode,
                seed=seed,
                normalize=normalize,
                split=split,
                sampling=sampling,
            )
        )

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
        request = VoiceClone(
            text,
            _spread("voice_clone_prompt", items, 1)[0],
            language,
            stream_text=not non_streaming_mode,
            seed=seed,
            normalize=normalize,
            split=split,
            sampling=sampling,
        )
        return self.stream(request, chunk_frames)

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
        given = ref_audio if isinstance(ref_audio, list) else [ref_audio]
        audios = [fetch_url(a, allow_url, f"ref_audio {i}") for i, a in enumerate(given)]
        n = len(audios)
        return self.encode_references(
            audios,
            _spread("ref_text", ref_text, n),
            _spread("x_vector_only_mode", x_vector_only_mode, n),
            _spread("decoder_voice", decoder_voice, n),
        )

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

    def _waves(self, requests: Sequence[VoiceRequest]) -> tuple[list[np.ndarray], int]:
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


def _texts(text: str | list[str]) -> list[str]:
    texts = text if isinstance(text, list) else [text]
    if not texts:
        raise RequestError("the list of texts is empty; give at least one text.")
    return texts


def _rows(text: str | list[str], **values: Any) -> Iterator[dict[str, Any]]:
    """The arguments of each text, by name."""
    texts = _texts(text)
    spread = {name: _spread(name, value, len(texts)) for name, value in values.items()}
    for i, each in enumerate(texts):
        yield {"text": each} | {name: column[i] for name, column in spread.items()}


def _spread(name: str, value: Any, n: int) -> list[Any]:
    """One value, or a list of one, for all n texts; otherwise a list of n."""
    values = value if isinstance(value, list) else [value]
    if len(values) == 1:
        return values * n
    if len(values) != n:
        raise RequestError(f"{name} has {len(values)} entries for {n} texts; give one or {n}.")
    return values
