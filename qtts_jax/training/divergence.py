"""Detection of divergence: values that are not finite, and a rising smoothed loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qtts_jax.errors import TrainingError


class DivergenceDetector:
    """Checks the metrics of every step.

    A run has diverged when its smoothed loss exceeds the lowest smoothed loss so far by
    `margin`. The margin is absolute, since a loss may be near or below zero.

    Args:
        margin: None to check only for values that are not finite.
        smoothing: decay of the exponential average of the loss.
        patience: steps before the first check, while the average settles.
    """

    def __init__(
        self, margin: float | None = None, smoothing: float = 0.98, patience: int = 50
    ) -> None:
        self._margin, self._smoothing, self._patience = margin, smoothing, patience
        self._seen, self._average, self._lowest = 0, 0.0, math.inf

    def check(self, step: int, metrics: Mapping[str, float]) -> None:
        """Check the metrics of one step.

        Raises:
            TrainingError: a metric is not finite, or the loss has diverged.
        """
        bad = sorted(name for name, value in metrics.items() if not math.isfinite(value))
        if bad:
            raise TrainingError(f"step {step} gave {metrics[bad[0]]} for {', '.join(bad)}")
        self._seen += 1
        # The mean of the first steps, an exponential average later.
        weight = max(1 - self._smoothing, 1 / self._seen)
        self._average += weight * (metrics["loss"] - self._average)
        if self._seen < self._patience:
            return
        self._lowest = min(self._lowest, self._average)
        if self._margin is not None and self._average > self._lowest + self._margin:
            raise TrainingError(
                f"the loss has diverged at step {step}: its average rose from {self._lowest:.4g} "
                f"to {self._average:.4g}"
            )

    def state(self) -> dict[str, Any]:
        """JSON values for `restore`."""
        lowest = self._lowest if math.isfinite(self._lowest) else None
        return {"seen": self._seen, "average": self._average, "lowest": lowest}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._seen, self._average = int(state["seen"]), float(state["average"])
        self._lowest = math.inf if state["lowest"] is None else float(state["lowest"])
