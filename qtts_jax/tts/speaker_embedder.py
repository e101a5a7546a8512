"""From a recording to an x-vector: mel spectrogram and speaker encoder in one program."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.configs.tts import SpeakerEncoderConfig
from qtts_jax.dsp.mel import MelConfig, log_mel
from qtts_jax.functional import Params, abstract, bind, matmul_precision
from qtts_jax.io.audio import AudioSource, load_audio
from qtts_jax.models.speaker_encoder import SpeakerEncoder, min_frames

# Waves are padded to powers of two of this many samples (0.68 s), so that few lengths compile.
MIN_SAMPLES = 16384


def mel_config(config: SpeakerEncoderConfig) -> MelConfig:
    """The front end of a speaker encoder: everything but rate and bins is fixed upstream."""
    return MelConfig(sample_rate=config.sample_rate, n_mels=config.n_mels)


@functools.lru_cache(maxsize=16)
def _program(config: SpeakerEncoderConfig):
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

    Raises:
        ConfigError: the sample rate is too low for the mel spectrogram.
    """

    def __init__(self, config: SpeakerEncoderConfig, params: Params) -> None:
        mel_config(config)
        self.config = config
        self._params = params

    @property
    def min_samples(self) -> int:
        """The shortest audio, in samples, that the encoder's reflect padding allows."""
        mel, frames = mel_config(self.config), min_frames(self.config)
        return max(mel.min_samples, mel.n_fft - 2 * mel.pad + (frames - 1) * mel.hop)

    def __call__(self, audio: AudioSource, name: str = "audio") -> np.ndarray:
        """The x-vector [D] float32 of a recording.

        Raises:
            AudioError: the recording cannot be used or is too short.
        """
        rate = self.config.sample_rate
        wave = load_audio(audio, rate, min_samples=self.min_samples, name=name, audible=True)
        padded = MIN_SAMPLES
        while padded < len(wave):
            padded *= 2
        batch = np.zeros((1, padded), np.float32)
        batch[0, : len(wave)] = wave
        out = _program(self.config)(self._params, batch, np.asarray([len(wave)], np.int32))
        return np.asarray(out[0])
