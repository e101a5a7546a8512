"""From the arguments of a call to a laid-out request: names, defaults, text to ids."""

from __future__ import annotations

import json
import secrets
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import CheckpointError, RequestError, TextError
from qtts_jax.generation.loops import MAX_SEED, Request
from qtts_jax.generation.prompt import (
    SpeakerCondition,
    build_prompt,
    check_language,
    speaker_id,
    text_needed,
)
from qtts_jax.speech_tokenizer.base import check_codes
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.text.bpe import IncrementalText, TextTokenizer
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem

# After the last piece of a text: whatever a caller gives as a piece is another thing.
_END: Any = object()


@dataclass(frozen=True)
class SpeechRequest(Request):
    """A request for audio.

    Attributes:
        decoder_voice: who speaks, for decoders that want to know (25 Hz).
    """

    decoder_voice: ReferenceVoice | None = None


@dataclass(frozen=True)
class Layout:
    """All of a request but its text, checked."""

    voice: SpeakerCondition
    language: str
    instruct_ids: tuple[int, ...]
    sampling: SamplingParams
    seed: int
    decoder_voice: ReferenceVoice | None


class RequestBuilder:
    """Makes requests for one checkpoint.

    Args:
        config: what `config.json` says.
        text_tokenizer: the checkpoint's own.
        defaults: sampling settings for arguments not given.
    """

    def __init__(
        self, config: TTSConfig, text_tokenizer: TextTokenizer, defaults: SamplingParams
    ) -> None:
        self.config = config
        self.text_tokenizer = text_tokenizer
        self.defaults = defaults

    def preset(
        self, speaker: str | None, instruct: str | None
    ) -> tuple[SpeakerCondition, str | None]:
        """A preset speaker, and the instruction if this checkpoint follows any."""
        name = None if speaker is None or speaker == "" else str(speaker)
        if name is not None:
            speaker_id(self.config.talker, name)
        # The official test for "0.6B" is this substring test.
        if instruct and self.config.size in "0b6":
            warnings.warn(
                "0.6B checkpoints were not trained on instructions; it is ignored.",
                stacklevel=4,
            )
            instruct = None
        return SpeakerCondition(speaker=None if name is None else name.lower()), instruct

    def cloned(self, item: VoiceClonePromptItem) -> SpeakerCondition:
        """The voice of a reference; codes are used in context alone.

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

    def layout(
        self,
        voice: SpeakerCondition,
        language: str | None,
        instruct: str | None,
        seed: int | None,
        sampling: dict[str, Any],
        decoder_voice: ReferenceVoice | None = None,
    ) -> Layout:
        """Check all of a request but its text."""
        return Layout(
            voice,
            check_language(self.config.talker, language),
            tuple(self.text_tokenizer.instruct_ids(instruct) if instruct else ()),
            self.defaults.merge(sampling),
            _seed(seed),
            decoder_voice,
        )

    def _lay_out(
        self,
        layout: Layout,
        role: Sequence[int],
        ids: Sequence[int],
        stream_text: bool,
        text_complete: bool = True,
    ) -> SpeechRequest:
        prompt = build_prompt(
            self.config,
            role,
            ids,
            voice=layout.voice,
            language=layout.language,
            instruct_ids=layout.instruct_ids,
            stream_text=stream_text,
            text_complete=text_complete,
        )
        return SpeechRequest(
            prompt, layout.sampling, layout.seed, layout.voice.codes, layout.decoder_voice
        )

    def whole(self, layout: Layout, text: str, stream_text: bool) -> SpeechRequest:
        """A request whose text is all there.

        Raises:
            TextError: the text is empty or no string.
        """
        if not isinstance(text, str):
            raise TextError(f"text must be a string, not {type(text).__name__}.")
        return self._lay_out(layout, *self.text_tokenizer.assistant_ids(text), stream_text)

    def arriving(
        self, layout: Layout, pieces: Iterator[str]
    ) -> tuple[SpeechRequest, Iterator[list[int]] | None]:
        """A request whose text arrives in pieces; waits until it can be laid out.

        Returns:
            the request and the ids still to come, None when the text has ended already.
        """
        incremental = self.text_tokenizer.incremental()
        known: list[int] = []
        complete = False
        while len(known) < text_needed(layout.voice) and not complete:
            piece = next(pieces, _END)
            complete = piece is _END
            known += incremental.finish() if complete else incremental.push(piece)
        request = self._lay_out(layout, incremental.role_ids, known, True, complete)
        return request, None if complete else self._later_ids(pieces, incremental)

    def _later_ids(
        self, pieces: Iterator[str], incremental: IncrementalText
    ) -> Iterator[list[int]]:
        for piece in pieces:
            yield incremental.push(piece)
        yield [*incremental.finish(), self.config.tts_eos_id]


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
