"""Prepares requests: lays out the prompts of their texts, whole, in parts or as they arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import TextError
from qtts_jax.generation.prompt import build_prompt, text_needed
from qtts_jax.generation.request import Request
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.text.bpe import IncrementalText, TextTokenizer
from qtts_jax.tts.arriving_ids import ArrivingIds
from qtts_jax.tts.checked_request import CheckedRequest, RequestChecker
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
from qtts_jax.tts.long_text import ArrivingParts, pause_after, split_text
from qtts_jax.tts.runaway_guard import frame_budget
from qtts_jax.tts.spoken_text import spoken_pieces, spoken_text
from qtts_jax.tts.voices import VoiceClone, VoiceRequest

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
        pause: seconds between the speech of the part before and this one; None for the first.
        only: the text has no other part.
    """

    wait: Callable[[VoiceClonePromptItem | None], Arriving]
    pause: float | None
    only: bool = False


class RequestBuilder:
    """Makes requests for one checkpoint.

    Args:
        config: of the checkpoint.
        text_tokenizer: the checkpoint's own.
        speech_tokenizer: resolves the decoder's voice.
        defaults: sampling settings for arguments not given.
        exact_reference: leave out what the official package does not do: texts are not normalised
            or split unless a request says so, and nothing but `max_new_tokens` bounds speech.

    Attributes:
        checker: checks all of a request but its text.
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
        self._frames_per_second = speech_tokenizer.sample_rate / speech_tokenizer.samples_per_frame
        self.checker = RequestChecker(
            config, text_tokenizer, speech_tokenizer, defaults, exact_reference
        )

    def prepare(self, request: VoiceRequest) -> Request:
        """Check a request whose text is complete and lay it out, not split.

        Raises:
            RequestError: the checkpoint does not do this, or a name or setting is wrong.
            TextError: a text is no string, is empty or has no word.
        """
        checked = self.checker.check(request)
        return self._complete(checked, self._spoken(checked), checked.seed)

    def plan(self, request: VoiceRequest) -> Plan:
        """Check a request whose text is complete and split the text into parts.

        Raises:
            RequestError, TextError: as `prepare`.
        """
        checked = self.checker.check(request)
        text = self._spoken(checked)
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
        checked = self.checker.check(request)
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
            return iter(_planned_parts(plan, first)), plan.carries_voice
        checked = self.checker.check(request)
        return self._arriving_parts(checked, self._pieces(checked)), checked.carries_voice

    def _arriving_parts(self, checked: CheckedRequest, pieces: Iterator[str]) -> Iterator[OpenPart]:
        parts, pause = ArrivingParts(pieces, checked.longest), None
        for i, part in enumerate(parts):
            seed = part_seed(checked.seed, i)
            yield OpenPart(partial(self._arriving_part, checked, part, seed), pause)
            pause = pause_after(parts.spoken)  # of what has been spoken of this part

    def _arriving_part(
        self,
        checked: CheckedRequest,
        pieces: Iterator[str],
        seed: int,
        voice: VoiceClonePromptItem | None,
    ) -> Arriving:
        return self._arriving(self._with_voice(checked, voice), pieces, seed)

    def _pieces(self, checked: CheckedRequest) -> Iterator[str]:
        text = checked.request.text
        if not isinstance(text, Iterable):
            raise TextError(f"text must be a string or an iterator, not {type(text).__name__}.")
        return spoken_pieces(text, checked.language, checked.normalized, checked.named_letters)

    def _spoken(self, checked: CheckedRequest) -> str:
        text = checked.request.text
        return spoken_text(text, checked.language, checked.normalized, checked.named_letters)

    def _complete(self, checked: CheckedRequest, text: str, seed: int) -> Request:
        role, ids = self.text_tokenizer.assistant_ids(text)
        budget = self._budget(checked, text)
        return self._laid_out(checked, role, ids, checked.request.stream_text, True, seed, budget)

    def _laid_out(
        self,
        checked: CheckedRequest,
        role: Sequence[int],
        ids: Sequence[int],
        stream_text: bool,
        text_complete: bool,
        seed: int,
        budget: int | None,
    ) -> Request:
        """The request of a text or of one of its parts; arguments as of `build_prompt`."""
        voice = checked.voice
        prompt = build_prompt(
            self.config,
            role,
            ids,
            voice=voice,
            language=checked.language,
            instruct_ids=checked.instruct_ids,
            stream_text=stream_text,
            text_complete=text_complete,
        )
        return Request(prompt, checked.sampling, seed, voice.codes, checked.decoder_voice, budget)

    def _arriving(self, checked: CheckedRequest, pieces: Iterator[str], seed: int) -> Arriving:
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
        prepared = self._laid_out(
            checked, incremental.role_ids, known, True, complete, seed, budget
        )
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

    def _budget(self, checked: CheckedRequest, text: str) -> int | None:
        return frame_budget(text, self._frames_per_second) if checked.guarded else None

    def _with_voice(
        self, checked: CheckedRequest, item: VoiceClonePromptItem | None
    ) -> CheckedRequest:
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
        return self.checker.check(clone)


def part_seed(seed: int, index: int) -> int:
    """The seed of a part; the first part has the request's own."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0]) if index else seed


def _planned_parts(plan: Plan, first: Request) -> list[OpenPart]:
    pauses, only = [None, *map(pause_after, plan.texts[:-1])], len(plan.texts) == 1
    return [
        OpenPart(partial(_planned, plan, first, i), pause, only) for i, pause in enumerate(pauses)
    ]


def _planned(
    plan: Plan, first: Request, index: int, voice: VoiceClonePromptItem | None
) -> Arriving:
    return (plan.prepare(index, voice) if index else first), None
