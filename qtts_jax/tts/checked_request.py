"""Checks a request, all but its text, against the checkpoint."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from qtts_jax.checks import is_whole_number
from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import RequestError
from qtts_jax.generation.prompt import SpeakerCondition, check_names
from qtts_jax.generation.request import MAX_SEED
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.text.bpe import TextTokenizer
from qtts_jax.text.spoken import normalize
from qtts_jax.tts.cloned_voice import cloned_voice
from qtts_jax.tts.long_text import LONGEST
from qtts_jax.tts.voices import CustomVoice, VoiceClone, VoiceDesign, VoiceRequest

MODE_OF_TYPE = {
    "custom_voice": "custom_voice",
    "voice_design": "voice_design",
    "base": "voice_clone",
}
_MODES: dict[type, str] = {
    CustomVoice: "custom_voice",
    VoiceDesign: "voice_design",
    VoiceClone: "voice_clone",
}


@dataclass(frozen=True)
class CheckedRequest:
    """A request of which everything but the text is checked.

    Attributes:
        request: as it was given.
        voice: who speaks.
        decoder_voice: see `generation.request.Request`.
        instruct_ids: the user turn of its instruction, or ().
        sampling: the request's settings over those of the checkpoint.
        language: a name that the checkpoint knows, or "auto".
        seed: the request's, or a drawn one.
        normalized: numbers, abbreviations and marks of the text are spoken as words.
        named_letters: then spelled letters are spoken by name.
        guarded: frames are bounded by what the text can need (`runaway_guard.py`).
        longest: characters of the longest part of the text; None for a text that is not split.
        carries_voice: see `Plan`.
    """

    request: VoiceRequest
    voice: SpeakerCondition
    decoder_voice: ReferenceVoice | None
    instruct_ids: Sequence[int]
    sampling: SamplingParams
    language: str
    seed: int
    normalized: bool
    named_letters: bool
    guarded: bool
    longest: int | None
    carries_voice: bool


class RequestChecker:
    """Checks requests for one checkpoint.

    Args:
        config: of the checkpoint.
        text_tokenizer: the checkpoint's own.
        speech_tokenizer: resolves the decoder's voice.
        defaults: sampling settings for arguments not given.
        exact_reference: see `RequestBuilder`.

    Attributes:
        modes: what the checkpoint does, of "custom_voice", "voice_design" and "voice_clone".
    """

    def __init__(
        self,
        config: TTSConfig,
        text_tokenizer: TextTokenizer,
        speech_tokenizer: SpeechTokenizer,
        defaults: SamplingParams,
        exact_reference: bool,
    ) -> None:
        self.config = config
        self.text_tokenizer = text_tokenizer
        self.speech_tokenizer = speech_tokenizer
        self.defaults = defaults
        self.exact_reference = exact_reference
        self.modes = tuple(MODE_OF_TYPE[each] for each in config.types)

    def require(self, mode: str) -> None:
        """Check that the checkpoint does "custom_voice", "voice_design" or "voice_clone".

        Raises:
            RequestError: it does not.
        """
        if mode not in self.modes:
            able = ", ".join(self.modes)
            raise RequestError(
                f"this is a {self.config.model_type} checkpoint, which does {able}, not {mode}; "
                f"load a checkpoint of the other type or use the verbs of {able}."
            )

    def check(self, request: VoiceRequest) -> CheckedRequest:
        """Check all of a request but its text.

        Raises:
            RequestError: the checkpoint does not do this, or a name or setting is wrong.
        """
        if type(request) not in _MODES:
            raise RequestError(
                "a request must be a CustomVoice, VoiceDesign or VoiceClone, not "
                f"{type(request).__name__}."
            )
        self.require(_MODES[type(request)])
        speaker = _preset_name(request)
        language = check_names(self.config.talker, request.language, speaker)
        normalizes = self.config.normalize_text and not self.exact_reference
        normalized = _flag("normalize", request.normalize, normalizes)
        instruct = None if isinstance(request, VoiceClone) else request.instruct
        if isinstance(request, CustomVoice):
            voice = SpeakerCondition(speaker=None if speaker is None else speaker.lower())
            instruct = self._followed(request)
        elif isinstance(request, VoiceClone):
            spoken = None
            if normalized:
                named = self.config.named_letters
                spoken = partial(normalize, language=language, named_letters=named)
            voice = cloned_voice(request.voice, self.config.talker, self.text_tokenizer, spoken)
        else:
            voice = SpeakerCondition()
        given = request.voice if isinstance(request, VoiceClone) else request
        decoder_voice = given.decoder_voice
        if decoder_voice is not None or self.speech_tokenizer.needs_voice:
            decoder_voice = self.speech_tokenizer.decoder_voice(decoder_voice, voice.speaker)
        instruct_ids = self.text_tokenizer.instruct_ids(instruct) if instruct else ()
        sampling = self.defaults.merge(request.sampling)
        seed = _seed(request.seed)
        longest = self.config.longest_text or LONGEST
        splits = _flag("split", request.split, not self.exact_reference)
        unnamed = voice.embedding is None and voice.speaker is None
        return CheckedRequest(
            request,
            voice,
            decoder_voice,
            instruct_ids,
            sampling,
            language,
            seed,
            normalized,
            self.config.named_letters,
            not self.exact_reference and request.sampling.get("max_new_tokens") is None,
            longest if splits else None,
            unnamed and "base" in self.config.types,
        )

    def _followed(self, request: CustomVoice) -> str | None:
        """The instruction if this checkpoint follows instructions; warns of what is missing."""
        if request.speaker is None and self.config.talker.speakers:
            first = self.config.talker.speakers[0][0]
            warnings.warn(
                "no speaker is given, so the model picks a voice, another with every seed (as in "
                f"the official package); name a preset such as {first!r}, or give "
                'speaker="" if that is meant.',
                stacklevel=6,  # the caller of `prepare_custom_voice`
            )
        # The official test for "0.6B" is this substring test.
        if request.instruct and self.config.size in "0b6":
            warnings.warn(
                "0.6B checkpoints were not trained on instructions; it is ignored.",
                stacklevel=6,  # the caller of `prepare_custom_voice`
            )
            return None
        return request.instruct


def _preset_name(request: VoiceRequest) -> str | None:
    """The preset speaker that a request names."""
    if not isinstance(request, CustomVoice) or request.speaker is None or request.speaker == "":
        return None
    return str(request.speaker)


def _flag(name: str, given: bool | None, default: bool) -> bool:
    if given is None:
        return default
    if not isinstance(given, bool | np.bool_):
        raise RequestError(f"{name} must be True, False or None, not {given!r}.")
    return bool(given)


def _seed(seed: int | None) -> int:
    if seed is None:
        return secrets.randbelow(MAX_SEED + 1)
    if not is_whole_number(seed, 0, MAX_SEED):
        raise RequestError(f"seed must be a whole number from 0 to {MAX_SEED}, not {seed!r}.")
    return int(seed)
