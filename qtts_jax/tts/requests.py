"""Prepares requests: checks them against the checkpoint and lays out their prompts."""

from __future__ import annotations

import json
import secrets
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from qtts_jax.checks import is_whole_number
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
from qtts_jax.text.bpe import IncrementalText, TextTokenizer
from qtts_jax.tts.arriving_ids import ArrivingIds
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
from qtts_jax.tts.cloned_voice import cloned_voice
from qtts_jax.tts.long_text import LONGEST, ArrivingParts, part_seed, pause_after, split_text
from qtts_jax.tts.runaway_guard import frame_budget
from qtts_jax.tts.spoken_text import spoken_pieces, spoken_text
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
# (role ids, text ids, stream_text, text_complete, seed, frame budget) -> request
LayOut = Callable[[Sequence[int], Sequence[int], bool, bool, int, int | None], Request]
# A request whose text has begun to arrive, and the ids still to come (None: there are no more).
Arriving = tuple[Request, ArrivingIds | None]


@dataclass(frozen=True)
class Plan:
    """A request as the parts that its text is split into, in order.

    Attributes:
        texts: what each part speaks.
        seed: of the request and of its first part.
        carries_voice: the request names no voice, so that every part would draw its own: the parts
            after the first are to be prepared with the voice of the first one's audio.
        prepare: (index of a part, the voice to speak it with, None for the request's own) ->
            the prepared part.
    """

    texts: tuple[str, ...]
    seed: int
    carries_voice: bool
    prepare: Callable[[int, VoiceClonePromptItem | None], Request]


@dataclass(frozen=True)
class OpenPart:
    """One part of a text that may still arrive.

    Attributes:
        wait: (the voice to speak it with, None for the request's own) -> the part, as soon as
            enough of its text is there.
        pause: seconds to the speech of the next part; to be called when this one has ended.
    """

    wait: Callable[[VoiceClonePromptItem | None], Arriving]
    pause: Callable[[], float]


@dataclass(frozen=True)
class _Checked:
    """A request with everything but its text checked."""

    request: VoiceRequest
    voice: SpeakerCondition
    lay_out: LayOut
    language: str
    seed: int
    normalized: bool
    guarded: bool
    longest: int | None
    carries_voice: bool


class RequestBuilder:
    """Makes requests for one checkpoint.

    Args:
        config: of the checkpoint.
        text_tokenizer: the checkpoint's own.
        speech_tokenizer: resolves the decoder's voice.
        defaults: sampling settings for arguments not given.
        exact_reference: leave out what the official package does not do: texts are not normalised
            or split unless a request says so, and nothing but `max_new_tokens` bounds speech.
    """

    def __init__(
        self,
        config: TTSConfig,
        text_tokenizer: TextTokenizer,
        speech_tokenizer: SpeechTokenizer,
        defaults: SamplingParams,
        exact_reference: bool = False,
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

    def prepare(self, request: VoiceRequest) -> Request:
        """Check a request whose text is complete and lay it out, not split.

        Raises:
            RequestError: the checkpoint does not do this, or a name or setting is wrong.
            TextError: a text is no string, is empty or has no word.
        """
        checked = self._checked(request)
        text = spoken_text(self._string(request), checked.language, checked.normalized)
        return self._complete(checked, text, checked.seed)

    def plan(self, request: VoiceRequest) -> Plan:
        """Check a request whose text is complete and split the text into parts.

        Raises:
            RequestError, TextError: as `prepare`.
        """
        checked = self._checked(request)
        text = spoken_text(self._string(request), checked.language, checked.normalized)
        texts = [text] if checked.longest is None else split_text(text, checked.longest)

        def prepare(index: int, voice: VoiceClonePromptItem | None) -> Request:
            seed = part_seed(checked.seed, index)
            return self._complete(self._with_voice(checked, voice), texts[index], seed)

        return Plan(tuple(texts), checked.seed, checked.carries_voice, prepare)

    def open(self, request: VoiceRequest) -> Callable[[], Arriving]:
        """Check a request whose text may arrive in pieces and is not split.

        Returns:
            a function that lays the request out as soon as enough text has arrived.

        Raises:
            RequestError, TextError: as `prepare`; arriving text that is empty is an error of the
                function.
        """
        if isinstance(getattr(request, "text", None), str):
            prepared = self.prepare(request)
            return lambda: (prepared, None)
        checked = self._checked(request)
        pieces = self._pieces(checked)
        return lambda: self._arriving(checked, pieces, checked.seed)

    def open_parts(self, request: VoiceRequest) -> tuple[Iterator[OpenPart], bool]:
        """Check a request whose text may arrive in pieces, and split the text into parts.

        Returns:
            the parts, each to be used to its end before the next is taken, and `carries_voice` as
            in `Plan`.

        Raises:
            RequestError, TextError: as `open`.
        """
        if isinstance(getattr(request, "text", None), str):
            plan = self.plan(request)
            first = plan.prepare(0, None)
            return self._planned_parts(plan, first), plan.carries_voice
        checked = self._checked(request)
        return self._arriving_parts(checked, self._pieces(checked)), checked.carries_voice

    def _planned_parts(self, plan: Plan, first: Request) -> Iterator[OpenPart]:
        for i, text in enumerate(plan.texts):
            yield OpenPart(
                partial(_planned, plan, first, i),
                partial(pause_after, text),
            )

    def _arriving_parts(self, checked: _Checked, pieces: Iterator[str]) -> Iterator[OpenPart]:
        parts = ArrivingParts(pieces, checked.longest)
        for i, part in enumerate(parts):
            yield OpenPart(
                partial(self._arriving_part, checked, part, part_seed(checked.seed, i)),
                lambda: pause_after(parts.spoken),
            )

    def _arriving_part(
        self,
        checked: _Checked,
        pieces: Iterator[str],
        seed: int,
        voice: VoiceClonePromptItem | None,
    ) -> Arriving:
        return self._arriving(self._with_voice(checked, voice), pieces, seed)

    def _pieces(self, checked: _Checked) -> Iterator[str]:
        text = checked.request.text
        if not isinstance(text, Iterable):
            raise TextError(f"text must be a string or an iterator, not {type(text).__name__}.")
        return spoken_pieces(text, checked.language, checked.normalized)

    def _string(self, request: VoiceRequest) -> str:
        if not isinstance(request.text, str):
            raise TextError(f"text must be a string, not {type(request.text).__name__}.")
        return request.text

    def _complete(self, checked: _Checked, text: str, seed: int) -> Request:
        role, ids = self.text_tokenizer.assistant_ids(text)
        budget = self._budget(checked, text)
        return checked.lay_out(role, ids, checked.request.stream_text, True, seed, budget)

    def _arriving(self, checked: _Checked, pieces: Iterator[str], seed: int) -> Arriving:
        """Lay out a part as soon as enough of its text is there."""
        incremental = self.text_tokenizer.incremental()
        known: list[int] = []
        text: list[str] = []
        complete = False
        while len(known) < text_needed(checked.voice) and not complete:
            piece = next(pieces, None)
            complete = piece is None
            text.append(piece or "")
            known += incremental.finish() if piece is None else incremental.push(piece)
        budget = self._budget(checked, "".join(text)) if complete else None
        prepared = checked.lay_out(incremental.role_ids, known, True, complete, seed, budget)
        if complete:
            return prepared, None
        later = self._later_ids(pieces, incremental, text)
        return prepared, ArrivingIds(later, lambda: self._budget(checked, "".join(text)))

    def _later_ids(
        self, pieces: Iterator[str], incremental: IncrementalText, text: list[str]
    ) -> Iterator[list[int]]:
        for piece in pieces:
            text.append(piece)
            yield incremental.push(piece)
        yield [*incremental.finish(), self.config.tts_eos_id]

    def _budget(self, checked: _Checked, text: str) -> int | None:
        if not checked.guarded:
            return None
        codec = self.speech_tokenizer
        return frame_budget(text, codec.sample_rate / codec.samples_per_frame)

    def _with_voice(self, checked: _Checked, item: VoiceClonePromptItem | None) -> _Checked:
        """The request as that of a clone, for a part after the first."""
        if item is None:
            return checked
        given = checked.request
        clone = VoiceClone(
            "",
            item,
            given.language,
            stream_text=given.stream_text,
            seed=checked.seed,
            sampling=given.sampling,
        )
        return self._checked(clone)

    def _checked(self, request: VoiceRequest) -> _Checked:
        if type(request) not in _MODES:
            raise RequestError(
                "a request must be a CustomVoice, VoiceDesign or VoiceClone, not "
                f"{type(request).__name__}."
            )
        self.require(_MODES[type(request)])
        language = check_language(self.config.talker, request.language)
        normalized = _flag("normalize", request.normalize, self._normalizes)
        instruct = None if isinstance(request, VoiceClone) else request.instruct
        if isinstance(request, CustomVoice):
            voice, instruct = self._preset(request.speaker, instruct)
        elif isinstance(request, VoiceClone):
            transcript_language = language if normalized else None
            voice = cloned_voice(
                request.voice, self.config.talker, self.text_tokenizer, transcript_language
            )
        else:
            voice = SpeakerCondition()
        given = request.voice if isinstance(request, VoiceClone) else request
        decoder_voice = given.decoder_voice
        if decoder_voice is not None or self.speech_tokenizer.needs_voice:
            decoder_voice = self.speech_tokenizer.decoder_voice(decoder_voice, voice.speaker)
        instruct_ids = self.text_tokenizer.instruct_ids(instruct) if instruct else ()
        sampling = self.defaults.merge(request.sampling)
        seed = _seed(request.seed)

        def lay_out(
            role: Sequence[int],
            ids: Sequence[int],
            stream_text: bool,
            text_complete: bool,
            seed: int,
            budget: int | None,
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
            return Request(prompt, sampling, seed, voice.codes, decoder_voice, budget)

        longest = self.config.longest_text or LONGEST
        splits = _flag("split", request.split, not self.exact_reference)
        unnamed = voice.embedding is None and voice.speaker is None
        return _Checked(
            request,
            voice,
            lay_out,
            language,
            seed,
            normalized,
            not self.exact_reference and request.sampling.get("max_new_tokens") is None,
            longest if splits else None,
            unnamed and "base" in self.config.types,
        )

    @property
    def _normalizes(self) -> bool:
        """Whether texts are normalised unless a request says otherwise."""
        return self.config.normalize_text and not self.exact_reference

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


def _planned(
    plan: Plan, first: Request, index: int, voice: VoiceClonePromptItem | None
) -> Arriving:
    return (plan.prepare(index, voice) if index else first), None


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
