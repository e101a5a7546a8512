"""Reference voices for cloning, made once and used for many texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qtts_jax.errors import RequestError
from qtts_jax.io.audio import AudioSource, read_audio
from qtts_jax.speaker import SpeakerEmbedder
from qtts_jax.speech_tokenizer import SpeechTokenizer


@dataclass(frozen=True)
class VoiceClonePromptItem:
    """A reference voice (fields as in the official package).

    Attributes:
        ref_code: [T, Q] int32 codes of the reference, None in x-vector mode.
        ref_spk_embedding: [D] float32 x-vector.
        x_vector_only_mode, icl_mode: which kind of cloning; always opposites.
        ref_text: transcript of the reference (needed for in-context cloning).
    """

    ref_code: np.ndarray | None
    ref_spk_embedding: np.ndarray
    x_vector_only_mode: bool
    icl_mode: bool
    ref_text: str | None = None


def clone_voices(
    tokenizer: SpeechTokenizer,
    embedder: SpeakerEmbedder,
    audios: Sequence[AudioSource],
    texts: Sequence[str | None],
    x_vector_only: Sequence[bool],
) -> list[VoiceClonePromptItem]:
    """Encode reference recordings.

    Args:
        texts: what is said in each, needed unless `x_vector_only`.

    Raises:
        RequestError: a text is missing.
        AudioError: a recording cannot be used.
    """
    for i, (words, x) in enumerate(zip(texts, x_vector_only, strict=True)):
        if not x and not words:
            raise RequestError(
                f"ref_text is missing for reference {i}: in-context cloning needs the words of "
                "the recording; give them or set x_vector_only_mode=True."
            )
    names = [f"ref_audio {i}" for i in range(len(audios))]
    heard = [read_audio(audio, name=name) for audio, name in zip(audios, names, strict=True)]
    embeddings = [embedder(audio, name) for audio, name in zip(heard, names, strict=True)]
    codes: list[np.ndarray | None] = [None] * len(heard)
    if not all(x_vector_only):
        # The official code pads all references of one rate to the longest, x-vector ones
        # included, and encodes those of unlike rates one by one; with `pad_to_longest` the codes
        # depend on it.
        together = len({rate for _, rate in heard}) == 1
        groups = [heard] if together else [[audio] for audio in heard]
        codes = [c for group in groups for c in tokenizer.encode(group)]
    return [
        VoiceClonePromptItem(None if x else c, e, bool(x), not x, t)
        for c, e, x, t in zip(codes, embeddings, x_vector_only, texts, strict=True)
    ]
