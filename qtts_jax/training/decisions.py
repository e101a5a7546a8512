"""Decisions to stop or to slow down that all processes of a run take at the same step."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Decisions:
    """The largest of the values that the processes of a mesh propose, the same in all of them.

    Clocks and signals differ between hosts, but a process that stops before the others would leave
    them waiting. With several processes the values are those proposed at the call before: they are
    compared on the devices, in turn with the steps, and no process waits for the step under way.

    Args:
        mesh: all devices of the run.

    Attributes:
        late: the values are those of the call before; the first call waits for its own.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self.late = not self._rows.is_fully_addressable
        self._largest = jax.jit(
            lambda x: jnp.max(x, axis=0), out_shardings=NamedSharding(mesh, PartitionSpec())
        )
        self._devices = mesh.size
        self._before: jax.Array | None = None

    def __call__(self, values: Sequence[float]) -> list[float]:
        """Propose values, float32, and return the agreed ones."""
        if not self.late:
            return list(values)
        own = np.asarray([values], np.float32)
        shape = (self._devices, len(values))
        proposed = self._largest(jax.make_array_from_callback(shape, self._rows, lambda _: own))
        agreed = proposed if self._before is None else self._before
        self._before = proposed
        return [float(x) for x in np.asarray(agreed)]
