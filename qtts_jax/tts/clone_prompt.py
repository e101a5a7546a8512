"""Encoded reference recordings for voice cloning, reusable for many texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qtts_jax.errors import RequestError
from qtts_jax.io.audio import AudioSource, read_audio
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.tts.speaker_embedder import SpeakerEmbedder


@dataclass(frozen=True)
class VoiceClonePromptItem:
    """An encoded reference recording (all fields but the last as in the official package).

    Attributes:
        ref_code: [T, Q] int32 codes of the reference ([T] at 25 Hz), None in x-vector mode.
        ref_spk_embedding: [D] float32 x-vector.
        x_vector_only_mode, icl_mode: which kind of cloning; always opposites.
        ref_text: transcript of the reference (needed for in-context cloning).
        decoder_voice: speaker features of a 25 Hz decoder; None for a 12 Hz one.
    """

    ref_code: np.ndarray | None
    ref_spk_embedding: np.ndarray
    x_vector_only_mode: bool
    icl_mode: bool
    ref_text: str | None = None
    decoder_voice: ReferenceVoice | None = None


def clone_voices(
    tokenizer: SpeechTokenizer,
    embedder: SpeakerEmbedder,
    audios: Sequence[AudioSource],
    texts: Sequence[str | None],
    x_vector_only: Sequence[bool],
    decoder_voices: Sequence[ReferenceVoice | None],
) -> list[VoiceClonePromptItem]:
    """Encode reference recordings.

    Args:
        texts: transcripts, needed unless `x_vector_only`.
        decoder_voices: speaker features of the decoder; None to compute them if it needs any.

    Raises:
        RequestError: a text is missing, or a voice is given to a decoder that takes none.
        AudioError: a recording cannot be used.
        CheckpointError: the checkpoint lacks the network that computes a decoder's voice.
    """
    for i, (words, x) in enumerate(zip(texts, x_vector_only, strict=True)):
        if not x and not words:
            raise RequestError(
                f"ref_text is missing for reference {i}: in-context cloning needs the words of "
                "the recording; give them or set x_vector_only_mode=True."
            )
    names = [f"ref_audio {i}" for i in range(len(audios))]
    recordings = [read_audio(audio, name=name) for audio, name in zip(audios, names, strict=True)]
    decoders = list(decoder_voices)
    for i, (given, audio, name) in enumerate(zip(decoder_voices, recordings, names, strict=True)):
        if given is not None:
            decoders[i] = tokenizer.decoder_voice(given)
        elif tokenizer.needs_voice:
            decoders[i] = tokenizer.reference_voice(audio, name)
    embeddings = [embedder(audio, name) for audio, name in zip(recordings, names, strict=True)]
    codes: list[np.ndarray | None] = [None] * len(recordings)
    if not all(x_vector_only):
        # As in the official code: references of one sample rate are encoded together, x-vector ones
        # included, and references of different rates one by one. With `pad_to_longest` the codes
        # depend on this.
        together = len({rate for _, rate in recordings}) == 1
        groups = [recordings] if together else [[audio] for audio in recordings]
        codes = [c for group in groups for c in tokenizer.encode(group)]
    return [
        VoiceClonePromptItem(None if x else c, e, bool(x), not x, t, d)
        for c, e, x, t, d in zip(codes, embeddings, x_vector_only, texts, decoders, strict=True)
    ]
