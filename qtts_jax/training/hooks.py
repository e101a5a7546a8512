"""Functions for hooks of every task: the averaged weights and the loss on held-out batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from qtts_jax.training.log import RunLog
from qtts_jax.training.state import TrainState
from qtts_jax.training.task import Groups


def averaged(state: TrainState) -> Groups:
    """The moving average of the weights, or the weights where a run has none."""
    return state.params if state.average is None else state.average


def held_out_loss(
    loss: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    batches: Iterable[dict[str, Any]],
    better: Callable[[TrainState], None] | None = None,
) -> Callable[[TrainState, RunLog], None]:
    """The function of a `Hook` that logs the mean metrics over held-out batches, `held_out/NAME`.

    Args:
        loss: (params, extras, batch, key) -> (loss, metrics), as `TalkerTask.loss`.
        batches: iterated at every call; batch i always has the random key i.
        better: called with the state after every loss that is the lowest so far.
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
