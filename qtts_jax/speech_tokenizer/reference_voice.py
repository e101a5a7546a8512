"""The speaker features of the 25 Hz decoder: an x-vector and the mel of reference speech.

Source: upstream `XVectorExtractor`. The CAM++ speaker network comes with a checkpoint as an ONNX
file and runs in onnxruntime on the CPU (the extra `xvector`), once per recording. Neither is needed
when the two arrays are given.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from qtts_jax.configs.tokenizer_25hz import ENCODER_HOP, ENCODER_SAMPLE_RATE
from qtts_jax.dsp.kaldi_fbank import FbankConfig, fbank
from qtts_jax.dsp.mel import MelConfig, log_mel
from qtts_jax.dsp.sox_norm import normalize_peak
from qtts_jax.errors import AudioError, CheckpointError, RequestError
from qtts_jax.io.audio import AudioSource, load_audio

CAMPPLUS = "campplus.onnx"
# Waves are padded to powers of two of this many samples (1.02 s), so that few lengths compile.
MIN_PADDED = 16384


@dataclass(frozen=True, eq=False)
class ReferenceVoice:
    """The speaker features that the 25 Hz decoder is conditioned on.

    Attributes:
        xvector: [X] float32, the normalised CAM++ embedding.
        ref_mel: [T, M] float32, log-mel frames (10 ms) of the reference speech.
    """

    xvector: np.ndarray
    ref_mel: np.ndarray


def reference_mel_config(n_mels: int) -> MelConfig:
    """Settings of the reference mel; all but the number of bins are fixed upstream."""
    return MelConfig(
        sample_rate=ENCODER_SAMPLE_RATE,
        n_fft=1024,
        hop=ENCODER_HOP,
        win=640,
        n_mels=n_mels,
        fmax=ENCODER_SAMPLE_RATE / 2,
    )


_log_mel = jax.jit(log_mel, static_argnums=1)


def reference_mel(wave: np.ndarray, n_mels: int) -> np.ndarray:
    """Log-mel frames [T, M] float32 of a 16 kHz wave (used as given: peak-normalise it first).

    Raises:
        AudioError: the wave is too short to be reflected at its ends.
    """
    config = reference_mel_config(n_mels)
    if len(wave) < config.min_samples:
        raise AudioError(
            f"a reference mel needs at least {config.min_samples} samples "
            f"({config.min_samples / config.sample_rate:.3f} s), got {len(wave)}: give longer "
            "audio."
        )
    padded = MIN_PADDED
    while padded < len(wave):
        padded *= 2
    batch = np.zeros((1, padded), np.float32)
    batch[0, : len(wave)] = wave
    mel, frames = _log_mel(batch, config, np.asarray([len(wave)], np.int32))
    return np.asarray(mel)[0, : int(frames[0])]


class ReferenceVoiceExtractor:
    """Computes reference voices from recordings with the CAM++ network of a checkpoint.

    The network is loaded with the first recording, so that a checkpoint without it is usable for
    everything else.

    Args:
        directory: the tokenizer's folder, which holds `campplus.onnx`.
        n_mels: bins of the reference mel.
        min_frames: the fewest frames of a reference mel that the decoder accepts.
    """

    def __init__(self, directory: Path, n_mels: int, min_frames: int = 1) -> None:
        self.path = directory / CAMPPLUS
        self.n_mels = n_mels
        self.min_samples = max(
            FbankConfig().win, reference_mel_config(n_mels).min_samples, min_frames * ENCODER_HOP
        )

    @functools.cached_property
    def _session(self) -> Any:
        if not self.path.is_file():
            raise CheckpointError(
                f"{self.path} is not there, so no x-vector can be computed from audio; copy it "
                "from the released tokenizer or give the x-vector and the reference mel."
            )
        try:
            import onnxruntime
        except ImportError as error:
            raise RequestError(
                "an x-vector from audio needs onnxruntime: pip install 'qtts_jax[xvector]', or "
                "give the x-vector and the reference mel."
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            return onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # each fault of a model file has its own exception type
            raise CheckpointError(
                f"{self.path} is not a usable ONNX model; copy it again from the released "
                "tokenizer."
            ) from error

    def __call__(self, audio: AudioSource, name: str = "audio") -> ReferenceVoice:
        """The voice of a recording.

        Raises:
            AudioError: the recording cannot be used or is too short.
            CheckpointError: there is no usable `campplus.onnx`.
            RequestError: onnxruntime is not installed.
        """
        session = self._session
        wave = load_audio(
            audio, ENCODER_SAMPLE_RATE, min_samples=self.min_samples, name=name, audible=True
        )
        wave = normalize_peak(wave)
        return ReferenceVoice(self._embed(session, wave), reference_mel(wave, self.n_mels))

    def _embed(self, session: Any, wave: np.ndarray) -> np.ndarray:
        """The CAM++ embedding [X] of mean-free fbank features, normalised to length one."""
        features = fbank(wave)
        features -= features.mean(axis=0, keepdims=True)
        inputs = {session.get_inputs()[0].name: features[None]}
        vector = np.asarray(session.run(None, inputs)[0], np.float32).reshape(-1)
        # The floor is that of the official normalisation: a zero vector stays zero.
        return vector / np.maximum(np.linalg.norm(vector), np.float32(1e-12))
