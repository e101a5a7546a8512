"""Mel frames and speaker features of clips for the 25 Hz decoder, in memory for a training run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qtts_jax.configs.tokenizer_25hz import ENCODER_SAMPLE_RATE
from qtts_jax.data.dataset import Waves
from qtts_jax.data.mels import log_mels
from qtts_jax.dsp.sox_norm import normalize_peak
from qtts_jax.errors import DataError
from qtts_jax.io.resample import resample
from qtts_jax.speech_tokenizer.reference_voice import (
    ReferenceVoiceExtractor,
    reference_mel_config,
)


def resampled_waves(waves: Waves, rate: int) -> Waves:
    """The same clips at another rate, 16-bit as before."""
    if waves.sample_rate == rate:
        return waves

    def clips() -> Iterator[np.ndarray]:
        for i in range(len(waves)):
            yield resample(waves[i].astype(np.float32) / 32768, waves.sample_rate, rate)

    lengths = np.ceil(waves.lengths * (rate / waves.sample_rate)).astype(np.int64)
    return Waves(rate, waves.indices, clips(), lengths)


def normalized_waves(waves: Waves) -> Waves:
    """The same clips at the level that a reference recording is brought to."""
    clips = (normalize_peak(waves[i].astype(np.float32) / 32768) for i in range(len(waves)))
    return Waves(waves.sample_rate, waves.indices, clips, waves.lengths)


def clip_xvectors(waves: Waves, width: int, directory: Path | None) -> np.ndarray:
    """The x-vector of every clip, float32 [N, X].

    Args:
        waves: at 16 kHz.
        width: X of the decoder.
        directory: holds `campplus.onnx`; None for zeros, with which a decoder has the
            reference mel alone to determine the voice.

    Raises:
        AudioError: a clip is too short.
        CheckpointError: `directory` has no usable `campplus.onnx`.
        DataError: its vectors have another width than the decoder's.
    """
    if directory is None:
        return np.zeros((len(waves), width), np.float32)
    extract = ReferenceVoiceExtractor(directory, 1)
    found = [
        extract((waves[i].astype(np.float32) / 32768, waves.sample_rate), f"clip {i}").xvector
        for i in range(len(waves))
    ]
    if found[0].shape != (width,):
        raise DataError(
            f"the x-vectors of {directory} have {found[0].shape[0]} numbers and the decoder takes "
            f"{width}; set enc_emb_dim of dit_config to their number."
        )
    return np.stack(found)


def clip_mels(waves: Waves, n_mels: int, *, progress: bool = True) -> list[np.ndarray]:
    """Natural-log mel frames float16 [F, M] of every clip, one every 10 ms.

    Their analysis is that of the reference mel (`speech_tokenizer/reference_voice.py`), so the
    decoder predicts the kind of mel that it is conditioned on.

    Args:
        waves: at 16 kHz.

    Raises:
        DataError: another rate, or a clip that is too short.
    """
    if waves.sample_rate != ENCODER_SAMPLE_RATE:
        raise DataError(
            f"mel frames of the 25 Hz decoder are made of {ENCODER_SAMPLE_RATE} Hz, not "
            f"{waves.sample_rate} Hz; use resampled_waves."
        )
    config = reference_mel_config(n_mels)
    short = int(np.sum(waves.lengths < config.min_samples))
    if short:
        raise DataError(
            f"{short} clips are shorter than {config.min_samples / config.sample_rate:.3f} s, the "
            "least that a mel frame needs; leave them out."
        )
    found = log_mels(waves, range(len(waves)), config, progress=progress)
    return [found[i] for i in range(len(waves))]
