"""Talker examples: the prompt that generation would build, then the frames it should generate.

`layout_example` works from the rows of `build_prompt`, so training has every layout that generation
has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.data.talker_layout import LayoutChoice
from qtts_jax.errors import ConfigError, TrainingError
from qtts_jax.generation.batch import stack_prompts
from qtts_jax.generation.prompt import AUTO, Prompt, SpeakerCondition, build_prompt
from qtts_jax.models.speaker_encoder import min_frames


@dataclass(frozen=True)
class Example:
    """One laid out utterance.

    Attributes:
        rows: the inputs of all positions: the prompt's rows, then one row for every frame, with
            its codes on the codec track and the rest of the text (then tts_pad) on the text track.
            `trailing` is empty.
        start: the position whose output gives frame 0; that of frame s is start + s, and the end
            of speech follows from the last frame.
        codes: [F, Q] int32, the frames.
        ends: the utterance ends with the last frame; False for a cut, which has no such target.
        mel: [M, mels] float32 log-mel of a recording of the voice, for training the speaker
            encoder jointly, or None; its x-vector takes the place of `rows.embedding`.
        spoken: [F] int32, the text token that is spoken in each frame; None where the text is not
            known.
    """

    rows: Prompt
    start: int
    codes: np.ndarray
    ends: bool = True
    mel: np.ndarray | None = None
    spoken: np.ndarray | None = None


def layout_example(
    config: TTSConfig,
    prompt: Prompt,
    codes: np.ndarray,
    *,
    ends: bool = True,
    mel: np.ndarray | None = None,
) -> Example:
    """Append the frames of an utterance to its prompt.

    Args:
        prompt: of `build_prompt`, any layout, with the whole text.
        codes: [F, Q] int, at least one frame.

    Raises:
        TrainingError: the codes have another shape or are outside the codebooks.
    """
    c = config.talker
    codes = np.asarray(codes)
    if codes.ndim != 2 or codes.shape[1] != c.codebooks or not len(codes):
        raise TrainingError(
            f"an utterance needs codes [frames, {c.codebooks}] with at least one frame, not "
            f"{list(codes.shape)}."
        )
    sizes = np.full(c.codebooks, c.codebook_size)
    if c.code_predictor is not None:
        sizes[1:] = c.code_predictor.vocab_size
    if (codes < 0).any() or (codes >= sizes).any():
        q = int(np.flatnonzero(((codes < 0) | (codes >= sizes)).any(axis=0))[0])
        raise TrainingError(
            f"codes of codebook {q} must be from 0 to {sizes[q] - 1}, not "
            f"{codes[:, q].min()} to {codes[:, q].max()}; use the tokenizer of this model."
        )
    codes, frames = codes.astype(np.int32), len(codes)
    text = np.full(frames, config.tts_pad_id, np.int32)
    trailing = prompt.trailing[:frames]
    text[: len(trailing)] = trailing
    rows = Prompt(
        text=np.concatenate([prompt.text, text]),
        codec=np.concatenate([prompt.codec, codes[:, 0]]),
        residual=np.concatenate([prompt.residual, codes[:, 1:]]),
        speaker=np.concatenate([prompt.speaker, np.zeros(frames, bool)]),
        embedding=prompt.embedding,
        trailing=prompt.trailing[:0],
    )
    return Example(rows, len(prompt) - 1, codes, ends, mel)


@dataclass(frozen=True)
class Utterance:
    """Speech with its text, and all that may describe its voice; None or () for unknown parts.

    Attributes:
        text_ids: the text, as `TextTokenizer.assistant_ids` gives it.
        codes: [F, Q] int, the speech.
        language: a language of the model, or "auto".
        speaker: the name of a preset speaker.
        embedding: [D] float32 x-vector.
        mel: [M, mels] float32 log-mel of the voice, for a speaker encoder in training.
        reference_codes, reference_ids: another recording of the voice with its text ids
            (`TextTokenizer.reference_ids`), for in-context cloning.
        instruct_ids: a description or instruction (`TextTokenizer.instruct_ids`).
        spoken: [F] int32, the token of `text_ids` that is spoken in each frame
            (`data.alignment`); None for a constant speaking rate (`even_pace`).
    """

    text_ids: tuple[int, ...]
    codes: np.ndarray
    language: str = AUTO
    speaker: str | None = None
    embedding: np.ndarray | None = None
    mel: np.ndarray | None = None
    reference_codes: np.ndarray | None = None
    reference_ids: tuple[int, ...] = ()
    instruct_ids: tuple[int, ...] = ()
    spoken: np.ndarray | None = None


def layout_utterance(
    config: TTSConfig, role_ids: Sequence[int], utterance: Utterance, choice: LayoutChoice
) -> Example:
    """Lay out an utterance as `choice` has it, whatever else the utterance offers.

    Args:
        role_ids: the ids that open the assistant turn.

    Raises:
        RequestError: its speaker or language is not one of the model.
        TrainingError: the utterance lacks what the layout needs, or its codes do not fit the model.
    """
    u = utterance
    _check_parts(u, choice)
    voice, mel = SpeakerCondition(), None
    if choice.preset:
        voice = SpeakerCondition(speaker=u.speaker)
    elif not choice.no_speaker:
        mel, embedding = u.mel, u.embedding
        if embedding is None:
            embedding = np.zeros(config.talker.transformer.width, np.float32)
        voice = SpeakerCondition(embedding=embedding)
        if choice.in_context:
            voice = replace(voice, codes=u.reference_codes, text_ids=u.reference_ids)
    prompt = build_prompt(
        config,
        role_ids,
        u.text_ids,
        voice=voice,
        language=u.language if choice.language_tag else AUTO,
        instruct_ids=u.instruct_ids if choice.instruct else (),
        stream_text=choice.stream_text,
    )
    spoken = u.spoken
    if spoken is None and u.text_ids:
        spoken = even_pace(u.text_ids, len(u.codes))
    return replace(layout_example(config, prompt, u.codes, mel=mel), spoken=spoken)


def _check_parts(u: Utterance, choice: LayoutChoice) -> None:
    """Raise TrainingError for a part that the layout needs and the utterance lacks."""
    cloned = not choice.preset and not choice.no_speaker
    missing = {
        "a preset speaker": choice.preset and u.speaker is None,
        "an x-vector or a mel": cloned and u.embedding is None and u.mel is None,
        "reference codes": choice.in_context and u.reference_codes is None,
        "an instruction": choice.instruct and not u.instruct_ids,
    }
    for part in (name for name, lacks in missing.items() if lacks):
        raise TrainingError(
            f"the layout needs {part}, which the utterance lacks; choose another layout."
        )


def even_pace(text_ids: Sequence[int], frames: int) -> np.ndarray:
    """The text token of each frame at a constant speaking rate: [F] int32."""
    at = (np.arange(frames) + 0.5) * len(text_ids) / frames
    return np.asarray(text_ids, np.int32)[at.astype(int)]


class Bucket(NamedTuple):
    """Shapes of a batch: positions and frames of its longest rows, mel frames (0: no mels)."""

    positions: int
    frames: int
    mel_frames: int = 0


def collate(config: TTSConfig, examples: Sequence[Example], bucket: Bucket) -> dict[str, Any]:
    """Examples as one batch of padded arrays.

    Returns:
        The fields of `PromptBatch` for all inputs; `start`, `frames` [B] int32, `codes` [B, F, Q]
        int32, `ends` [B] bool and `spoken` [B, F] int32 (-1 for none) as in `Example`;
        `mean_frames` and `mean_targets` [B] float32, the averages over the whole batch in every
        row, by which losses are divided; with mels also `mel` [B, M, mels] float32, `mel_frames`
        [B] int32 and `has_mel` [B] bool.

    Raises:
        TrainingError: an example does not fit into the bucket.
    """
    width, rows = config.talker.transformer.width, len(examples)
    for i, e in enumerate(examples):
        mels = 0 if e.mel is None else len(e.mel)
        size = Bucket(len(e.rows), len(e.codes), mels)
        if any(n > limit for n, limit in zip(size, bucket, strict=True)):
            raise TrainingError(f"example {i} needs {size}, which does not fit into {bucket}.")
    inputs = stack_prompts([e.rows for e in examples], rows, bucket.positions, width)
    batch: dict[str, Any] = dict(inputs._asdict())
    batch["start"] = np.asarray([e.start for e in examples], np.int32)
    batch["frames"] = np.asarray([len(e.codes) for e in examples], np.int32)
    batch["ends"] = np.asarray([e.ends for e in examples], bool)
    codes = np.zeros((rows, bucket.frames, config.talker.codebooks), np.int32)
    for row, e in zip(codes, examples, strict=True):
        row[: len(e.codes)] = e.codes
    batch["codes"] = codes
    batch["spoken"] = np.full(codes.shape[:2], -1, np.int32)
    for row, e in zip(batch["spoken"], examples, strict=True):
        if e.spoken is not None:
            row[: len(e.spoken)] = e.spoken
    mean = np.float32(batch["frames"].mean())
    batch["mean_frames"] = np.full(rows, mean, np.float32)
    batch["mean_targets"] = np.full(rows, mean + np.float32(batch["ends"].mean()), np.float32)
    if bucket.mel_frames:
        batch |= _mels(config, examples, bucket.mel_frames)
    return batch


def _mels(config: TTSConfig, examples: Sequence[Example], frames: int) -> dict[str, Any]:
    encoder = config.speaker_encoder
    if encoder is None:
        raise ConfigError("mels need a speaker encoder; use a model of type base.")
    needed = min_frames(encoder)
    mel = np.zeros((len(examples), frames, encoder.n_mels), np.float32)
    # Rows without a mel hold silence of a length that the encoder takes; nothing reads its output.
    lengths = np.full(len(examples), needed, np.int32)
    for i, e in enumerate(examples):
        if e.mel is not None:
            if len(e.mel) < needed:
                raise TrainingError(
                    f"example {i} has a voice of {len(e.mel)} mel frames; the speaker encoder "
                    f"needs {needed}."
                )
            mel[i, : len(e.mel)], lengths[i] = e.mel, len(e.mel)
    has_mel = np.asarray([e.mel is not None for e in examples], bool)
    return {"mel": mel, "mel_frames": lengths, "has_mel": has_mel}
