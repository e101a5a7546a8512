"""What the trainer asks of a model under training, and of the data that feeds it."""

from __future__ import annotations

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
"""Float32 scalars; `loss` must be among them, it is what divergence is judged by."""


class Task(Protocol):
    """A model with its losses, as pure functions of arrays.

    The trainer owns everything else: master weights, optimizers, accumulation over microbatches,
    devices, checkpoints and logs. A task with several optimizers (generator and discriminator)
    returns the gradients of each group's own loss.
    """

    def init(self, key: jax.Array) -> tuple[Groups, Extras]:
        """Float32 parameters and the first extras."""
        ...

    def gradients(
        self, params: Groups, extras: Extras, batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[Groups, Extras, Metrics]:
        """Gradients of the mean loss over the rows of `batch`, traced inside `jax.jit`.

        Microbatches of equal size are averaged with equal weight, so a loss over a varying number
        of targets should divide by a count for the whole batch that the rows carry along (see
        `talker_batch.collate`); then accumulation equals one large batch exactly. Extras pass from
        one microbatch to the next.

        Args:
            key: differs from step to step and from microbatch to microbatch.

        Returns:
            a tree like `params`, a tree like `extras`, and scalars.
        """
        ...


@runtime_checkable
class SplitTask(Protocol):
    """A task whose parameters declare logical axes, so that a mesh can have a `model` axis."""

    def axes(self) -> Groups:
        """A tree like `params` of tuples of axis names (`functional.logical_axes`)."""
        ...


@runtime_checkable
class StartedTask(Protocol):
    """A task that begins with given parameters, or could.

    Its `init` takes them as an argument too: a compiled program that makes the first state of a
    mesh would otherwise hold them as constants.

    Attributes:
        start: the parameters, None for random ones.
    """

    start: Params | None

    def init(self, key: jax.Array, start: Params | None = None) -> tuple[Groups, Extras]:
        """As `Task.init`, with `start` in place of the task's own."""
        ...


@runtime_checkable
class CountingTask(Protocol):
    """A task that counts microbatches in its extras, to do some things only once a step.

    Attributes:
        accumulate: microbatches of a step, the same as the trainer's.
    """

    accumulate: int

    def at_step(self, extras: Extras, step: int) -> Extras:
        """The extras with the count as it is after `step` whole steps.

        They may come from a run that had done another number of steps.
        """
        ...


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
