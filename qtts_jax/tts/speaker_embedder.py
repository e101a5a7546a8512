"""X-vector of a recording: mel spectrogram and speaker encoder in one program."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.configs.tts import SpeakerEncoderConfig
from qtts_jax.dsp.mel import MelConfig, log_mel
from qtts_jax.functional import Params, abstract, bind, matmul_precision
from qtts_jax.io.audio import AudioSource, load_audio
from qtts_jax.models.speaker_encoder import SpeakerEncoder, min_frames

# Waves are padded to this many samples (0.68 s) times a power of two, so that few lengths compile.
MIN_SAMPLES = 16384


def mel_config(config: SpeakerEncoderConfig) -> MelConfig:
    """Mel front end of a speaker encoder; upstream fixes all but the rate and the bins."""
    return MelConfig(sample_rate=config.sample_rate, n_mels=config.n_mels)


@functools.lru_cache(maxsize=16)
def _program(config: SpeakerEncoderConfig) -> Callable[..., jax.Array]:
    graphdef, _ = abstract(SpeakerEncoder, config)

    def embed(params: Params, wave: jax.Array, lengths: jax.Array) -> jax.Array:
        mel, frames = log_mel(wave, mel_config(config), lengths)
        with matmul_precision(params):
            return bind(graphdef, params)(mel, frames).astype(jnp.float32)

    return jax.jit(embed)


class SpeakerEmbedder:
    """Computes x-vectors with the speaker encoder of a Base checkpoint.

    Args:
        params: of the `SpeakerEncoder`.

    Attributes:
        min_samples: the shortest audio, in samples, that the encoder's reflect padding allows.

    Raises:
        ConfigError: the sample rate is too low for the mel spectrogram.
    """

    def __init__(self, config: SpeakerEncoderConfig, params: Params) -> None:
        mel, frames = mel_config(config), min_frames(config)
        self.min_samples = max(mel.min_samples, mel.n_fft - 2 * mel.pad + (frames - 1) * mel.hop)
        self._sample_rate = config.sample_rate
        self._params, self._program = params, _program(config)

    def __call__(self, audio: AudioSource, name: str = "audio") -> np.ndarray:
        """The x-vector [D] float32 of a recording.

        Raises:
            AudioError: the recording cannot be used or is too short.
        """
        wave = load_audio(
            audio, self._sample_rate, min_samples=self.min_samples, name=name, audible=True
        )
        padded = MIN_SAMPLES
        while padded < len(wave):
            padded *= 2
        batch = np.zeros((1, padded), np.float32)
        batch[0, : len(wave)] = wave
        out = self._program(self._params, batch, np.asarray([len(wave)], np.int32))
        return np.asarray(out[0])
