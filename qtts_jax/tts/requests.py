"""Prepares requests: checks them against the checkpoint and lays out their prompts."""

from __future__ import annotations

import json
import secrets
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import CheckpointError, RequestError, TextError
from qtts_jax.generation.prompt import (
    SpeakerCondition,
    build_prompt,
    check_language,
    speaker_id,
    text_needed,
)
from qtts_jax.generation.request import MAX_SEED, Request
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.speech_tokenizer.checks import check_codes
from qtts_jax.text.bpe import IncrementalText, TextTokenizer
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
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
# Marks the end of the text; unlike any value that a caller's iterator can yield.
_END: Any = object()

# (role ids, text ids, stream_text, text_complete) -> request
LayOut = Callable[[Sequence[int], Sequence[int], bool, bool], Request]
# A request whose text has begun to arrive, and the ids still to come (None: there are no more).
Arriving = tuple[Request, Iterator[list[int]] | None]


class RequestBuilder:
    """Makes requests for one checkpoint.

    Args:
        config: of the checkpoint.
        text_tokenizer: the checkpoint's own.
        speech_tokenizer: resolves the decoder's voice.
        defaults: sampling settings for arguments not given.
    """

    def __init__(
        self,
        config: TTSConfig,
        text_tokenizer: TextTokenizer,
        speech_tokenizer: SpeechTokenizer,
        defaults: SamplingParams,
    ) -> None:
        self.config = config
        self.text_tokenizer = text_tokenizer
        self.speech_tokenizer = speech_tokenizer
        self.defaults = defaults
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

    def prepare(self, request: VoiceRequest) -> Request:
        """Check a request whose text is complete and lay it out.

        Raises:
            RequestError: the checkpoint does not do this, or a name or setting is wrong.
            TextError: a text is empty or no string.
        """
        _, lay_out = self._checked(request)
        if not isinstance(request.text, str):
            raise TextError(f"text must be a string, not {type(request.text).__name__}.")
        return self._complete(lay_out, request.text, request.stream_text)

    def open(self, request: VoiceRequest) -> Callable[[], Arriving]:
        """Check a request whose text may arrive in parts.

        Returns:
            a function that lays the request out as soon as enough text has arrived.

        Raises:
            RequestError, TextError: as `prepare`; arriving text that is empty is an error of the
                function.
        """
        voice, lay_out = self._checked(request)
        if isinstance(request.text, str):
            prepared = self._complete(lay_out, request.text, request.stream_text)
            return lambda: (prepared, None)
        if not isinstance(request.text, Iterable):
            raise TextError(
                f"text must be a string or an iterator, not {type(request.text).__name__}."
            )
        parts = iter(request.text)

        def wait() -> Arriving:
            incremental = self.text_tokenizer.incremental()
            known: list[int] = []
            complete = False
            while len(known) < text_needed(voice) and not complete:
                part = next(parts, _END)
                complete = part is _END
                known += incremental.finish() if complete else incremental.push(part)
            prepared = lay_out(incremental.role_ids, known, True, complete)
            return prepared, None if complete else self._later_ids(parts, incremental)

        return wait

    def _complete(self, lay_out: LayOut, text: str, stream_text: bool) -> Request:
        role, ids = self.text_tokenizer.assistant_ids(text)
        return lay_out(role, ids, stream_text, True)

    def _later_ids(self, parts: Iterator[str], incremental: IncrementalText) -> Iterator[list[int]]:
        for part in parts:
            yield incremental.push(part)
        yield [*incremental.finish(), self.config.tts_eos_id]

    def _checked(self, request: VoiceRequest) -> tuple[SpeakerCondition, LayOut]:
        """Check everything but the text; the function makes the request of a text's ids."""
        if type(request) not in _MODES:
            raise RequestError(
                "a request must be a CustomVoice, VoiceDesign or VoiceClone, not "
                f"{type(request).__name__}."
            )
        self.require(_MODES[type(request)])
        instruct = None if isinstance(request, VoiceClone) else request.instruct
        if isinstance(request, CustomVoice):
            voice, instruct = self._preset(request.speaker, instruct)
        elif isinstance(request, VoiceClone):
            voice = self._cloned(request.voice)
        else:
            voice = SpeakerCondition()
        given = request.voice if isinstance(request, VoiceClone) else request
        decoder_voice = given.decoder_voice
        if decoder_voice is not None or self.speech_tokenizer.needs_voice:
            decoder_voice = self.speech_tokenizer.decoder_voice(decoder_voice, voice.speaker)
        language = check_language(self.config.talker, request.language)
        instruct_ids = self.text_tokenizer.instruct_ids(instruct) if instruct else ()
        sampling = self.defaults.merge(request.sampling)
        seed = _seed(request.seed)

        def lay_out(
            role: Sequence[int], ids: Sequence[int], stream_text: bool, text_complete: bool
        ) -> Request:
            prompt = build_prompt(
                self.config,
                role,
                ids,
                voice=voice,
                language=language,
                instruct_ids=instruct_ids,
                stream_text=stream_text,
                text_complete=text_complete,
            )
            return Request(prompt, sampling, seed, voice.codes, decoder_voice)

        return voice, lay_out

    def _preset(
        self, speaker: str | None, instruct: str | None
    ) -> tuple[SpeakerCondition, str | None]:
        """A preset speaker, and the instruction if this checkpoint follows instructions."""
        name = None if speaker is None or speaker == "" else str(speaker)
        if name is not None:
            speaker_id(self.config.talker, name)
        elif speaker is None and self.config.talker.speakers:
            first = self.config.talker.speakers[0][0]
            warnings.warn(
                "no speaker is given, so the model picks a voice, another with every seed (as in "
                f"the official package); name a preset such as {first!r}, or give "
                'speaker="" if that is meant.',
                stacklevel=6,  # the caller of `prepare_custom_voice`
            )
        # The official test for "0.6B" is this substring test.
        if instruct and self.config.size in "0b6":
            warnings.warn(
                "0.6B checkpoints were not trained on instructions; it is ignored.",
                stacklevel=6,  # the caller of `prepare_custom_voice`
            )
            instruct = None
        return SpeakerCondition(speaker=None if name is None else name.lower()), instruct

    def _cloned(self, item: VoiceClonePromptItem) -> SpeakerCondition:
        """The voice of a reference; its codes are used in in-context mode only.

        Raises:
            RequestError: no such item, or one that contradicts itself or does not fit the model.
            TextError: the transcript is blank.
        """
        if not isinstance(item, VoiceClonePromptItem):
            raise RequestError(
                "voice_clone_prompt must come from create_voice_clone_prompt, not "
                f"{type(item).__name__}."
            )
        if bool(item.icl_mode) == bool(item.x_vector_only_mode):
            raise RequestError(
                "icl_mode and x_vector_only_mode of a voice must be opposites, but both are "
                f"{item.icl_mode!r}; set one of them."
            )
        embedding = self._speaker_vector(item.ref_spk_embedding)
        if not item.icl_mode:
            return SpeakerCondition(embedding=embedding)
        if item.ref_code is None:
            raise RequestError(
                "ref_code is missing: in-context cloning needs the recording's codes; make the "
                "voice with x_vector_only_mode=False."
            )
        if not item.ref_text:
            raise RequestError(
                "ref_text is missing: in-context cloning needs the recording's words."
            )
        words = self.text_tokenizer.reference_ids(item.ref_text)
        codes = self._reference_codes(item.ref_code)
        return SpeakerCondition(embedding=embedding, codes=codes, text_ids=tuple(words))

    def _speaker_vector(self, given: Any) -> np.ndarray:
        """An x-vector as float32 [D]."""
        if given is None:
            raise RequestError("ref_spk_embedding is missing: a cloned voice needs its x-vector.")
        vector = _array("ref_spk_embedding", given, np.float32).reshape(-1)
        width = self.config.talker.transformer.width
        if vector.shape != (width,) or not np.isfinite(vector).all():
            raise RequestError(
                f"ref_spk_embedding must be an x-vector of {width} finite numbers, but its shape "
                f"is {list(np.shape(given))}; make the voice with this checkpoint."
            )
        return vector

    def _reference_codes(self, given: Any) -> np.ndarray:
        """Reference codes as int32 [T, Q]."""
        c = self.config.talker
        codes = _array("ref_code", given)
        if codes.ndim == 1 and c.codebooks == 1:
            codes = codes[:, None]  # one-codebook tokenizers give [T]
        if codes.ndim != 2 or codes.shape[1] != c.codebooks:
            raise RequestError(
                f"ref_code must have the shape [frames, {c.codebooks}], not {list(codes.shape)}; "
                "make the voice with this checkpoint."
            )
        checked = check_codes(codes[:, :1], c.codebook_size)
        if c.code_predictor is not None:
            rest = check_codes(codes[:, 1:], c.code_predictor.vocab_size)
            checked = np.concatenate([checked, rest], axis=1)
        return checked


def read_sampling_defaults(directory: Path) -> SamplingParams:
    """The settings of a checkpoint's `generation_config.json`.

    Raises:
        CheckpointError: the file is absent or not a JSON object.
        RequestError: a setting is impossible.
    """
    path = directory / "generation_config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot read {path} ({error}); copy it from the released checkpoint."
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object; copy it from the checkpoint.")
    # The file may hold more settings of the upstream generation loop, none of which apply here.
    known = {f.name for f in fields(SamplingParams)}
    return SamplingParams().merge({k: v for k, v in data.items() if k in known})


def _array(name: str, given: Any, dtype: Any = None) -> np.ndarray:
    try:
        return np.asarray(given, dtype)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{name} must be an array of numbers ({error}).") from error


def _seed(seed: int | None) -> int:
    if seed is None:
        return secrets.randbelow(MAX_SEED + 1)
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not whole or not 0 <= seed <= MAX_SEED:
        raise RequestError(f"seed must be a whole number from 0 to {MAX_SEED}, not {seed!r}.")
    return int(seed)
