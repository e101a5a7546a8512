"""Task codec: recordings through a tokenizer and back, beside Opus."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.data.manifest import Clip
from qtts_jax.evaluation.codebooks import usage
from qtts_jax.evaluation.opus import check_bits, round_trip
from qtts_jax.evaluation.panel import Panel
from qtts_jax.evaluation.rows import Row, add_rise, score_row
from qtts_jax.evaluation.sample import SAMPLE_RATE, Sample, load_mono_16k, same_length
from qtts_jax.evaluation.tasks.clips import name_of
from qtts_jax.io.audio import read_audio
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice


def codec_rows(
    tokenizer: SpeechTokenizer,
    clips: Sequence[Clip],
    panel: Panel,
    opus: Sequence[int] = (6000, 12000),
) -> list[Row]:
    """Rows "original", "Opus N" and "tokenizer".

    Args:
        opus: target bit rates of Opus; the rows give the actual ones.

    Raises:
        AudioError: a recording cannot be used.
        EvaluationError: Opus is requested, and `av` is not installed or it cannot take such rates.
    """
    for bits in opus:
        check_bits(bits)
    n = len(clips)
    original = score_row("original", map(_original, clips), panel, n)
    rows = [original]
    for bits in opus:
        samples = (_opus(clip, bits) for clip in clips)
        rows.append(score_row(f"Opus {bits / 1000:g} kbit/s", samples, panel, n))
    codes: list[np.ndarray] = []
    row = score_row("tokenizer", tokenized(tokenizer, clips, codes), panel, n)
    row.details = _codebooks(tokenizer, codes)
    rows.append(row)
    for other in rows[1:]:
        add_rise(other, original)
    return rows


def _original(clip: Clip) -> Sample:
    return Sample(name_of(clip), load_mono_16k(clip.audio), clip.text, clip.language)


def _opus(clip: Clip, bits: int) -> Sample:
    wave, rate = read_audio(clip.audio)
    decoded, used = round_trip(wave, rate, bits)
    return _compared(clip, decoded, rate, {"bit_rate": (used, 1)})


def tokenized(
    tokenizer: SpeechTokenizer, clips: Sequence[Clip], kept: list[np.ndarray] | None = None
) -> Iterator[Sample]:
    """Recordings through the tokenizer and back, each beside its original.

    Args:
        kept: takes the codes [T, Q] of each clip.
    """
    bits = bit_rate(tokenizer)
    for clip in clips:
        codes = tokenizer.encode([clip.audio])[0]
        if kept is not None:
            kept.append(codes)
        options: dict[str, Any] = {}
        if tokenizer.needs_voice:
            options = {"voice": _voice(tokenizer, clip), "seed": 0}
        waves, rate = tokenizer.decode(codes, **options)
        yield _compared(clip, waves[0], rate, {"bit_rate": (bits, 1)})


def _voice(tokenizer: SpeechTokenizer, clip: Clip) -> ReferenceVoice:
    """The checkpoint's own voice of the speaker, where it has one, else that of the recording."""
    own = tokenizer.voices.get(clip.speaker.lower())
    return tokenizer.reference_voice(clip.audio, clip.audio.name) if own is None else own


def _compared(clip: Clip, wave: np.ndarray, rate: int, known: dict[str, Any]) -> Sample:
    """A decoded wave beside its original, both as long as the original."""
    original, decoded = load_mono_16k(clip.audio), load_mono_16k((wave, rate))
    return Sample(
        name_of(clip),
        same_length(decoded, len(original)),
        clip.text,
        clip.language,
        aligned=original,
        voice=original,
        seconds=len(decoded) / SAMPLE_RATE,
        expected_seconds=len(original) / SAMPLE_RATE,
        known=known,
    )


def entries(tokenizer: SpeechTokenizer) -> int:
    """Size of each codebook."""
    config = tokenizer.config
    if isinstance(config, Tokenizer12HzConfig):
        return config.decoder.quantizer.entries
    return config.encoder.entries


def bit_rate(tokenizer: SpeechTokenizer) -> float:
    """Bits a second of its codes: codebooks * log2(entries) * frames a second."""
    frames = tokenizer.sample_rate / tokenizer.samples_per_frame
    return tokenizer.codebooks * math.log2(entries(tokenizer)) * frames


def _codebooks(tokenizer: SpeechTokenizer, codes: Sequence[np.ndarray]) -> dict[str, Any]:
    found = usage(codes, entries(tokenizer))
    return {
        "frames": sum(map(len, codes)),
        "codebooks": tokenizer.codebooks,
        "entries": entries(tokenizer),
        "codebook_use": found["use"],
        "codebook_perplexity": found["perplexity"],
    }
