"""What a run does beside training: speech of the talker so far, and a loss on held-out batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.functional import cast
from qtts_jax.generation.request import Request
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.training.log import RunLog
from qtts_jax.training.state import TrainState
from qtts_jax.training.talker.task import TalkerTask
from qtts_jax.training.task import Groups
from qtts_jax.training.tokenizer import losses
from qtts_jax.training.tokenizer.task import TokenizerTask
from qtts_jax.tts.synthesis import synthesize


def averaged(state: TrainState) -> Groups:
    """The moving average of the weights, or the weights where a run has none."""
    return state.params if state.average is None else state.average


def speech_samples(
    task: TalkerTask, tokenizer: SpeechTokenizer, requests: Mapping[str, Request]
) -> Callable[[TrainState, RunLog], None]:
    """For a `Hook`: the same requests spoken again and again, as audio with a picture.

    Args:
        requests: by the name under which they are logged (`QwenTTS.prepare_...` makes them); with
            a seed each, so that only the weights change between samples.
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


def reconstruction_samples(
    task: TokenizerTask, audio: np.ndarray
) -> Callable[[TrainState, RunLog], None]:
    """For a `Hook`: held-out audio through the tokenizer so far, and how far its mel spectra are.

    The recordings themselves are logged at the first call. The distance is the unweighted mel loss,
    as `held_out/mel`.

    Args:
        audio: [B, N] float32 at the model's rate, N whole frames.
    """
    t, rate = task.training, task.config.output_sample_rate
    program = jax.jit(task.reconstruct)
    distance = jax.jit(lambda a, b: losses.mel_loss(a, b, t.mel_scales, rate, t.quiet))
    recorded = False

    def run(state: TrainState, log: RunLog) -> None:
        nonlocal recorded
        step = int(state.step)
        samples = program(averaged(state), state.extras, audio)[1]
        log.scalars(step, {"held_out/mel": float(distance(samples, audio))})
        for i, (wave, real) in enumerate(zip(np.asarray(samples), audio, strict=True)):
            log.audio(step, f"decoded_{i}", wave, rate)
            if not recorded:
                log.audio(step, f"recorded_{i}", real, rate)
        recorded = True

    return run


def held_out_loss(
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    batches: Iterable[dict[str, Any]],
    better: Callable[[TrainState], None] | None = None,
) -> Callable[[TrainState, RunLog], None]:
    """For a `Hook`: the mean metrics over held-out batches, logged as `held_out/NAME`.

    Args:
        loss: (params, extras, batch, key) -> (loss, metrics), as `TalkerTask.loss`.
        batches: read anew each time; every batch has the same key each time.
        better: called with the state whenever the loss is the lowest so far.
    """
    program = jax.jit(loss)
    lowest = float("inf")

    def run(state: TrainState, log: RunLog) -> None:
        nonlocal lowest
        params, found = averaged(state), []
        for i, batch in enumerate(batches):
            found.append(program(params, state.extras, batch, jax.random.key(i))[1])
        values = {n: float(np.mean([float(m[n]) for m in found])) for n in found[0]}
        log.scalars(int(state.step), {f"held_out/{n}": v for n, v in values.items()})
        if better is not None and values["loss"] < lowest:
            lowest = values["loss"]
            better(state)

    return run
