"""Means of the step metrics over a log window, with the divergence check of every step."""

from __future__ import annotations

import time
from typing import Any

import jax

from qtts_jax.training.divergence import DivergenceDetector
from qtts_jax.training.log import RunLog


class MetricWindow:
    """Reads the metrics of each call once the next one is dispatched, and logs their means.

    Args:
        detector: checks every step for divergence.
        log: receives the means.
        every: steps per window; its means are one line of the log.
        step: steps done before this session.
        window: the open window of the session before (`state`); {} for none.

    Attributes:
        loss: of the last step that was checked; None before the first.
    """

    def __init__(
        self,
        detector: DivergenceDetector,
        log: RunLog,
        every: int,
        step: int,
        window: dict[str, Any],
    ) -> None:
        self._detector, self._log, self._every = detector, log, every
        # The last step of a call, and the metrics [steps] of all of its steps.
        self._waiting: tuple[int, Any] | None = None
        self._step = step
        self._count: int = window.get("count", 0)
        self._sums: dict[str, float] = dict(window.get("sums", {}))
        # Steps of this session alone, and since when: the speed of a window.
        self._timed, self._started = 0, time.monotonic()
        self.loss: float | None = None

    def add(self, step: int, metrics: Any) -> None:
        """Store the metrics [steps] of the call that ends with `step`, and check the one before."""
        self.settle()
        self._waiting = (step, metrics)

    def settle(self) -> None:
        """Wait for the call in flight and check its steps.

        Raises:
            TrainingError: see `DivergenceDetector.check`.
        """
        if self._waiting is None:
            return
        (last, metrics), self._waiting = self._waiting, None
        found = {name: values.tolist() for name, values in jax.device_get(metrics).items()}
        for i, step in enumerate(range(last - len(found["loss"]) + 1, last + 1)):
            self._check(step, {name: values[i] for name, values in found.items()})

    def flush(self) -> None:
        """Log the means over a window that is not full; it stays open."""
        if self._count:
            self._write(partial=True)

    def state(self) -> dict[str, Any]:
        """JSON values to resume with: the state of the divergence check, and the open window."""
        window = {"count": self._count, "sums": dict(self._sums)} if self._count else {}
        return {"watch": self._detector.state(), "window": window}

    def _check(self, step: int, values: dict[str, float]) -> None:
        self._detector.check(step, values)
        self.loss = values["loss"]
        if self._sums.keys() != values.keys():
            # A window begins, or the run goes on with other losses.
            self._sums, self._count = dict.fromkeys(values, 0.0), 0
        self._step, self._count, self._timed = step, self._count + 1, self._timed + 1
        for name, value in values.items():
            self._sums[name] += value
        if step % self._every == 0:
            self._write()
            self._sums, self._count, self._timed = {}, 0, 0
            self._started = time.monotonic()

    def _write(self, *, partial: bool = False) -> None:
        row = {name: total / self._count for name, total in self._sums.items()}
        if self._timed:
            row["steps_per_second"] = self._timed / max(time.monotonic() - self._started, 1e-9)
        self._log.scalars(self._step, row, partial=partial)
