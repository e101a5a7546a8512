"""Reconstructions by a tokenizer under training."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from qtts_jax.training.hooks import averaged
from qtts_jax.training.log import RunLog
from qtts_jax.training.state import TrainState
from qtts_jax.training.tokenizer import losses
from qtts_jax.training.tokenizer.task import TokenizerTask


def reconstruction_samples(
    task: TokenizerTask, audio: np.ndarray
) -> Callable[[TrainState, RunLog], None]:
    """The function of a `Hook` that encodes and decodes held-out audio and logs its mel distance.

    The recordings themselves are logged at the first call. The distance is the unweighted mel loss,
    as `held_out/mel`.

    Args:
        audio: [B, N] float32 at the model's rate, N whole frames.
    """
    t, rate = task.training, task.config.output_sample_rate
    program = jax.jit(task.reconstruct)
    distance = jax.jit(lambda a, b: losses.mel_loss(a, b, t.mel_scales, rate, t.noise_floor))
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
