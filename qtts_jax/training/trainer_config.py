"""The settings of a training run that do not depend on the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qtts_jax.errors import ConfigError
from qtts_jax.training.mesh import MeshConfig
from qtts_jax.training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class TrainerConfig:
    """Settings of a run that do not depend on the model.

    Attributes:
        steps: updates of the whole run, over all its sessions (calls of `Trainer.run`).
        optimizers: one per parameter group of the task, by name.
        seed: of the parameters and of every random choice in training.
        accumulate: microbatches per step.
        steps_per_call: steps per call of the device (`lax.scan`), on batches of one shape. A GPU
            does the steps of a small model faster than a host can dispatch them one by one.
            Checkpoints and hooks follow the call that contains their step.
        average_decay: decay of the moving average of the weights; None for no average.
        mesh: devices and how parameters are split over them.
        log_every: steps per line of the log, which holds the means over them. A session that ends
            between two lines adds a partial one; when the run goes on, the full line replaces it.
        save_every: steps between checkpoints; the end of a session is saved too.
        keep: number of newest checkpoints kept.
        divergence_margin: see `DivergenceDetector`; None to stop only at values that are not
            finite.
        tensorboard: also write TensorBoard events.
        progress: show a bar with steps per second and the time left.
    """

    steps: int
    optimizers: Mapping[str, OptimizerConfig]
    seed: int = 0
    accumulate: int = 1
    steps_per_call: int = 1
    average_decay: float | None = None
    mesh: MeshConfig = field(default_factory=MeshConfig)
    log_every: int = 10
    save_every: int = 500
    keep: int = 2
    divergence_margin: float | None = None
    tensorboard: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "steps_per_call", "log_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}.")
        margin = self.divergence_margin
        if margin is not None and not margin > 0:
            raise ConfigError(f"divergence_margin must be above 0 or None, not {margin}.")
