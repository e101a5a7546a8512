"""What to speak and with which voice: one record for each kind of request.

    tts.generate([CustomVoice("Hello.", "ryan", seed=1), CustomVoice("Good bye.", "serena")])
    tts.stream(VoiceClone(words, voice))

Nothing is checked here; `QwenTTS.prepare` does that against the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem


@dataclass(frozen=True)
class _Spoken:
    """Fields that every kind of request has.

    Attributes:
        text: the text; for `QwenTTS.stream` also an iterator of parts of it, in order.
        stream_text: feed the text along with the frames instead of all before the first. Text from
            an iterator always is.
        seed: 0 ... 2^32 - 1; with the request it determines the codes, whatever the batch. None
            draws one.
        sampling: settings of `SamplingParams` by name, instead of the checkpoint's own.
            `max_new_tokens` given here bounds each part, in place of the runaway guard.
        normalize: rewrite numbers, abbreviations and marks as words (`qtts_jax.text.spoken`); None
            does so where the checkpoint was trained on such text.
        split: speak a text that is longer than what the model handles in parts with one voice,
            joined by pauses; None is True except with `exact_reference`.
    """

    text: str | Iterable[str]
    stream_text: bool = field(default=False, kw_only=True)
    seed: int | None = field(default=None, kw_only=True)
    sampling: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    normalize: bool | None = field(default=None, kw_only=True)
    split: bool | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class CustomVoice(_Spoken):
    """Speech of a preset speaker (CustomVoice checkpoints).

    Attributes:
        speaker: a name of `supported_speakers`, any case. "" lets the model pick a voice,
            another with every seed, as the official package does without a speaker; None does the
            same with a note.
        language: a name of `supported_languages`; None is "auto".
        instruct: how to speak; None or "" for nothing. 0.6B checkpoints ignore it.
        decoder_voice: for a 25 Hz decoder, instead of the speaker's own in the checkpoint.
    """

    speaker: str | None = None
    language: str | None = None
    instruct: str | None = None
    decoder_voice: ReferenceVoice | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class VoiceDesign(_Spoken):
    """Speech of a voice that is described in words (VoiceDesign checkpoints).

    Attributes:
        instruct: the description.
        language: a name of `supported_languages`; None is "auto".
        decoder_voice: for a 25 Hz decoder.
    """

    instruct: str | None = None
    language: str | None = None
    decoder_voice: ReferenceVoice | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class VoiceClone(_Spoken):
    """Speech of the voice of a recording (Base checkpoints).

    Attributes:
        voice: made from the recording by `QwenTTS.create_voice_clone_prompt`; it holds the
            `decoder_voice` of a 25 Hz decoder, too.
        language: a name of `supported_languages`; None is "auto".
        stream_text: as for the other kinds, but True by default (as in the official package).
    """

    voice: VoiceClonePromptItem
    language: str | None = None
    stream_text: bool = field(default=True, kw_only=True)


VoiceRequest = CustomVoice | VoiceDesign | VoiceClone
