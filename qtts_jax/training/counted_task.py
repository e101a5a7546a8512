"""A task that counts its microbatches, for what changes once in an optimizer step."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from qtts_jax.errors import ConfigError
from qtts_jax.training.task import Task


class CountedTask(Task):
    """A task whose extras hold `calls`, the microbatches so far (int32 scalar).

    Codebooks change with the last microbatch of a step, and discriminators start after so many
    steps. The task itself counts, in its gradients.

    Args:
        accumulate: microbatches of a step.

    Raises:
        ConfigError: `accumulate` is less than 1.
    """

    accumulate: int

    def __init__(self, accumulate: int) -> None:
        if accumulate < 1:
            raise ConfigError(f"accumulate must be 1 or more, not {accumulate}.")
        self.accumulate = accumulate

    def at_step(self, extras: dict[str, Any], step: int) -> dict[str, Any]:
        """The extras with `calls` after `step` whole steps; see `Task.at_step`."""
        return extras | {"calls": jnp.asarray(step * self.accumulate, jnp.int32)}
