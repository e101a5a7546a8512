"""Audio samples of a talker under training."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax.numpy as jnp

from qtts_jax.functional import cast
from qtts_jax.generation.request import Request
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.training.hooks import averaged
from qtts_jax.training.log import RunLog
from qtts_jax.training.state import TrainState
from qtts_jax.training.talker.task import TalkerTask
from qtts_jax.tts.synthesis import synthesize


def speech_samples(
    task: TalkerTask, tokenizer: SpeechTokenizer, requests: Mapping[str, Request]
) -> Callable[[TrainState, RunLog], None]:
    """The function of a `Hook` that synthesizes the same requests at every call and logs the audio.

    Args:
        requests: by the name under which they are logged (`QwenTTS.prepare_...` makes them), each
            with a seed, so that only the weights change between samples.
    """

    def run(state: TrainState, log: RunLog) -> None:
        step = int(state.step)
        whole = task.model_params(averaged(state), state.extras)
        params = cast(whole, jnp.dtype(task.config.dtype))
        spoken = synthesize(task.config.model, params, tokenizer, list(requests.values()))
        for name, speech in zip(requests, spoken, strict=True):
            # Speech that ends at once has no samples to write.
            if len(speech.wave):
                log.audio(step, name, speech.wave, tokenizer.sample_rate)
        frames = {f"frames/{n}": float(len(s.codes)) for n, s in zip(requests, spoken, strict=True)}
        log.scalars(step, frames)

    return run
