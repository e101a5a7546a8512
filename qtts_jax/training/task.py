"""Interfaces of the trainer: a task (a model with its losses) and its batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from qtts_jax.functional import Params

Groups = dict[str, Params]
"""Parameter trees by name; each group has an optimizer and a gradient norm of its own."""
Extras = Any
"""A tree of arrays that training changes without gradients (codebooks), or not at all (frozen
parameters); {} for none."""
Batch = dict[str, Any]
"""Arrays that all have the rows of the batch as axis 0."""
Metrics = dict[str, jax.Array]
"""Float32 scalars; `loss` must be among them, the divergence check reads it."""


class Task(ABC):
    """A model with its losses, as pure functions of arrays.

    The trainer owns everything else: master weights, optimizers, accumulation over microbatches,
    devices, checkpoints and logs. A task with several optimizers (generator and discriminator)
    returns the gradients of each group's own loss.

    Attributes:
        start: initial parameters; None for random ones.
        accumulate: microbatches per step, where the task counts them in its extras; the trainer
            refuses another number than its own. None where the task does not depend on it.
    """

    start: Params | None = None
    accumulate: int | None = None

    @abstractmethod
    def init(self, key: jax.Array, start: Params | None = None) -> tuple[Groups, Extras]:
        """Float32 parameters and the first extras.

        Args:
            key: of the random parameters.
            start: replaces the attribute `start`. The trainer passes it as an argument, because a
                compiled program would otherwise hold these parameters as constants.
        """

    @abstractmethod
    def gradients(
        self, params: Groups, extras: Extras, batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[Groups, Extras, Metrics]:
        """Gradients of the mean loss over the rows of `batch`, traced inside `jax.jit`.

        Microbatches of equal size are averaged with equal weight. A loss over a varying number of
        targets should therefore divide by a count for the whole batch that the rows carry (see
        `talker_batch.collate`); then accumulation equals one large batch exactly. Extras pass from
        one microbatch to the next.

        Args:
            key: differs from step to step and from microbatch to microbatch.

        Returns:
            a tree like `params`, a tree like `extras`, and scalars.
        """

    def axes(self) -> Groups | None:
        """A tree like `params` of tuples of axis names (`functional.logical_axes`).

        None where the parameters declare none; the mesh then cannot have a `model` axis.
        """
        return None

    def at_step(self, extras: Extras, step: int) -> Extras:
        """The extras with their counters set to those after `step` whole steps.

        The extras may come from a run that had done another number of steps.

        Args:
            step: steps of this run so far.
        """
        del step
        return extras


class Batches(Protocol):
    """Batches with an explicit position, so that a resumed run sees exactly what would follow.

    The position is a JSON object and describes the batches already handed out. Batches of one
    dataset may have a few different shapes (length buckets); each is compiled once.
    """

    def __next__(self) -> dict[str, np.ndarray]:
        """The next batch.

        Raises:
            StopIteration: the data has ended; training then ends too.
        """
        ...

    def state(self) -> dict[str, Any]:
        """The position, as JSON values."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position that `state` returned, on this or another machine."""
        ...


@runtime_checkable
class PolicyBatches(Batches, Protocol):
    """Batches that depend on the parameters in training: speech of the model itself."""

    def follow(self, params: Groups, extras: Extras) -> None:
        """Receive the parameters after the steps so far, before each batch.

        They are on the devices, and the next step donates them.
        """
        ...
