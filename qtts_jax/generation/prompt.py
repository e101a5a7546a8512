"""Prompt layouts: two tracks of ids whose embeddings are summed position by position.

A prompt is data, not embeddings: for every position a text id, a codec id, the residual codes of a
reference frame, or the speaker vector. Generation embeds it on the device, and training reads the
same rows. The layouts follow the official `generate` (upstream
`Qwen3TTSForConditionalGeneration`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qtts_jax.configs.tts import TalkerConfig, TTSConfig
from qtts_jax.errors import RequestError

AUTO = "auto"
Lengths = int | np.ndarray
Flags = bool | np.ndarray


@dataclass(frozen=True)
class SpeakerCondition:
    """Speaker of a request: a preset, an x-vector or a reference recording.

    Attributes:
        speaker: a preset name, or None.
        embedding: an x-vector [D] float32, or None; used instead of a preset.
        codes: [T, Q] reference codes for in-context cloning, or None.
        text_ids: the transcript of the reference, as text ids.
    """

    speaker: str | None = None
    embedding: np.ndarray | None = None
    codes: np.ndarray | None = None
    text_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """The id tracks of one request, -1 where a track has no id.

    Attributes:
        text: [T] int32 text ids.
        codec: [T] int32 codebook-0 or special ids.
        residual: [T, Q-1] int32 codes of codebooks 1..Q-1 (reference frames only).
        speaker: [T] bool, True where the x-vector is added.
        embedding: [D] float32 x-vector, or None.
        trailing: text ids added to the inputs of frames 0, 1, ...; after them comes tts_pad.
    """

    text: np.ndarray
    codec: np.ndarray
    residual: np.ndarray
    speaker: np.ndarray
    embedding: np.ndarray | None
    trailing: np.ndarray

    def __len__(self) -> int:
        return len(self.text)


class _Rows:
    """Collects rows of the tracks of ids."""

    def __init__(self) -> None:
        self.text: list[int] = []
        self.codec: list[int] = []

    def add(self, text: Sequence[int], codec: int | Sequence[int] = -1) -> None:
        """One row for every text id, all with one codec id or each with its own."""
        self.text.extend(text)
        self.codec.extend([codec] * len(text) if isinstance(codec, int) else codec)


def build_prompt(
    config: TTSConfig,
    role_ids: Sequence[int],
    text_ids: Sequence[int],
    *,
    voice: SpeakerCondition,
    language: str = AUTO,
    instruct_ids: Sequence[int] = (),
    stream_text: bool = False,
    text_complete: bool = True,
) -> Prompt:
    """Lay out the prompt of one request.

    Args:
        role_ids: the three ids that open the assistant turn.
        text_ids: the text to speak; with `text_complete=False`, its beginning.
        language: a name of the checkpoint or "auto", lower case.
        instruct_ids: the complete user turn of an instruction, or ().
        stream_text: feed the text along with the frames instead of all before the first.
        text_complete: False while text is still arriving (only with `stream_text`). Then at least
            `text_needed(...)` ids must be there, and the caller appends the rest to `trailing`.

    Raises:
        RequestError: the speaker or language is not one of this checkpoint.
    """
    c = config.talker
    rows = _Rows()
    rows.add(instruct_ids)
    rows.add(role_ids)

    # Tag block: language, speaker, pad on the codec track under tts_pad ... tts_bos.
    tags = _language_tags(c, language, voice.speaker)
    voice_at = None
    if voice.embedding is not None:
        voice_at = len(rows.text) + len(tags)
        tags.append(-1)
    elif voice.speaker is not None:
        tags.append(speaker_id(c, voice.speaker))
    rows.add([config.tts_pad_id] * len(tags), tags)
    rows.add([config.tts_bos_id], c.pad_id)

    frames = np.zeros((0, c.codebooks), np.int32)
    if voice.codes is not None:
        frames = np.asarray(voice.codes, np.int32)
    end = [config.tts_eos_id] if text_complete else []
    text = [*(voice.text_ids if len(frames) else ()), *text_ids, *end]
    if not stream_text:
        rows.add(text, c.pad_id)
        text = []
    # The codec track continues with bos and the reference frames, with the text beside it. Text
    # that is longer trails into the generated frames; text that is shorter is padded by tts_pad.
    codec = [c.bos_id, *frames[:, 0].tolist()]
    beside, trailing = text[: len(codec)], text[len(codec) :]
    rows.add([*beside, *[config.tts_pad_id] * (len(codec) - len(beside))], codec)

    positions = len(rows.text)
    residual = np.full((positions, c.codebooks - 1), -1, np.int32)
    residual[positions - len(frames) :] = frames[:, 1:]
    speaker = np.zeros(positions, bool)
    if voice_at is not None:
        speaker[voice_at] = True
    return Prompt(
        text=np.asarray(rows.text, np.int32),
        codec=np.asarray(rows.codec, np.int32),
        residual=residual,
        speaker=speaker,
        embedding=voice.embedding,
        trailing=np.asarray(trailing, np.int32),
    )


def prompt_positions(
    *,
    role: Lengths,
    text: Lengths,
    instruct: Lengths = 0,
    language_tag: Flags = False,
    speaker: Flags = True,
    reference_frames: Lengths = 0,
    reference_text: Lengths = 0,
    stream_text: Flags = False,
) -> np.ndarray:
    """The length of the prompt that `build_prompt` lays out with complete text, from its parts.

    All arguments are numbers, or arrays [N] for N prompts.

    Args:
        role, text, instruct: lengths of `role_ids`, `text_ids` and `instruct_ids`.
        language_tag: a language or dialect is tagged (see `tags_language`).
        speaker: there is a preset speaker or an x-vector.
        reference_frames, reference_text: frames and text ids of the in-context reference; the text
            counts only with frames.
        stream_text: as in `build_prompt`.
    """
    tags = np.where(language_tag, 4, 3) + np.asarray(speaker, int)
    spoken = text + np.where(np.asarray(reference_frames) > 0, reference_text, 0) + 1  # tts_eos
    # One row for tts_bos after the tags, and one for the codec bos before the reference frames.
    before = instruct + role + tags + 1 + np.where(stream_text, 0, spoken)
    return np.asarray(before + 1 + reference_frames)


def tags_language(c: TalkerConfig, language: str, speaker: str | None = None) -> bool:
    """Whether a prompt names its language: it is given, or the speaker has a dialect."""
    return _language_tags(c, language, speaker)[0] == c.think_id


def text_needed(voice: SpeakerCondition) -> int:
    """Text ids that must be known before a streaming-text prompt can be laid out."""
    if voice.codes is None:
        return 1
    return max(1, 1 + len(voice.codes) - len(voice.text_ids))


def speaker_id(c: TalkerConfig, name: str) -> int:
    """The codec id of a preset speaker.

    Raises:
        RequestError: no such speaker; the message lists those there are.
    """
    speakers = dict(c.speakers)
    if name.lower() not in speakers:
        known = ", ".join(sorted(speakers)) or "none (this checkpoint has no preset speakers)"
        raise RequestError(f"unknown speaker {name!r}; choose one of: {known}.")
    return speakers[name.lower()]


def supported_languages(c: TalkerConfig) -> list[str]:
    """ "auto" and every language of the checkpoint; dialects follow from the speaker."""
    return [AUTO, *(name for name, _ in c.languages if "dialect" not in name)]


def check_names(c: TalkerConfig, name: str | None, speaker: str | None = None) -> str:
    """The lower-case name of a supported language; None means "auto".

    Args:
        name: of the language.
        speaker: of a preset speaker, or None.

    Raises:
        RequestError: no such language or speaker; the message lists those there are.
    """
    language = AUTO if name is None else str(name).lower()
    if language not in supported_languages(c):
        known = ", ".join(supported_languages(c))
        raise RequestError(f"unknown language {name!r}; choose one of: {known}.")
    if speaker is not None:
        speaker_id(c, speaker)
    return language


def _language_tags(c: TalkerConfig, language: str, speaker: str | None) -> list[int]:
    dialect = dict(c.dialects).get(speaker.lower()) if speaker else None
    if dialect is not None and language in ("chinese", AUTO):
        language = dialect
    if language == AUTO:
        return [c.nothink_id, c.think_bos_id, c.think_eos_id]
    return [c.think_id, c.think_bos_id, dict(c.languages)[language], c.think_eos_id]
