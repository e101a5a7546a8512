"""Checks a clone prompt against a checkpoint and makes a speaker condition of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qtts_jax.configs.tts import TalkerConfig
from qtts_jax.errors import RequestError
from qtts_jax.generation.prompt import SpeakerCondition
from qtts_jax.speech_tokenizer.checks import check_codes
from qtts_jax.text.bpe import TextTokenizer
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem


def cloned_voice(
    item: VoiceClonePromptItem,
    talker: TalkerConfig,
    text_tokenizer: TextTokenizer,
    spoken: Callable[[str], str] | None,
) -> SpeakerCondition:
    """The voice of a reference; its codes are used in in-context mode only.

    Args:
        talker: sizes that the voice must fit.
        spoken: makes of a transcript what the model gets; None for the transcript itself.

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
    embedding = _speaker_vector(item.ref_spk_embedding, talker)
    if not item.icl_mode:
        return SpeakerCondition(embedding=embedding)
    if item.ref_code is None:
        raise RequestError(
            "ref_code is missing: in-context cloning needs the recording's codes; make the "
            "voice with x_vector_only_mode=False."
        )
    if not item.ref_text:
        raise RequestError("ref_text is missing: in-context cloning needs the recording's words.")
    text = item.ref_text if spoken is None else spoken(item.ref_text)
    words = text_tokenizer.reference_ids(text)
    codes = _reference_codes(item.ref_code, talker)
    return SpeakerCondition(embedding=embedding, codes=codes, text_ids=tuple(words))


def _speaker_vector(given: Any, talker: TalkerConfig) -> np.ndarray:
    """An x-vector as float32 [D]."""
    if given is None:
        raise RequestError("ref_spk_embedding is missing: a cloned voice needs its x-vector.")
    vector = _array("ref_spk_embedding", given, np.float32).reshape(-1)
    width = talker.transformer.width
    if vector.shape != (width,) or not np.isfinite(vector).all():
        raise RequestError(
            f"ref_spk_embedding must be an x-vector of {width} finite numbers, but its shape "
            f"is {list(np.shape(given))}; make the voice with this checkpoint."
        )
    return vector


def _reference_codes(given: Any, c: TalkerConfig) -> np.ndarray:
    """Reference codes as int32 [T, Q]."""
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


def _array(name: str, given: Any, dtype: Any = None) -> np.ndarray:
    try:
        return np.asarray(given, dtype)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{name} must be an array of numbers ({error}).") from error
