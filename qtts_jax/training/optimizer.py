"""AdamW with warmup, a decaying rate and clipping; the moving average of the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019) for one group of parameters.

    Attributes:
        learning_rate: the highest rate, reached after the warmup.
        warmup_steps: steps of linear growth from 0.
        decay: the rate after the warmup: "constant", or half a cosine or a line down to
            `final_ratio` of the highest rate at `total_steps`.
        total_steps: steps of the whole schedule, warmup included; unused when constant.
        b1, b2, eps: coefficients of Adam.
        weight_decay: per unit of learning rate, for parameters of two or more dimensions; scales
            and biases are not decayed.
        clip_norm: the gradients of the group are scaled down to this global norm; None for never.
    """

    learning_rate: float
    warmup_steps: int = 0
    decay: Literal["constant", "cosine", "linear"] = "constant"
    total_steps: int = 0
    final_ratio: float = 0.1
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip_norm: float | None = 1.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate must be above 0, not {self.learning_rate}.")
        if self.decay not in ("constant", "cosine", "linear"):
            raise ConfigError(f"decay must be constant, cosine or linear, not {self.decay!r}.")
        if self.decay != "constant" and self.total_steps <= self.warmup_steps:
            raise ConfigError(
                f"a {self.decay} decay needs total_steps above warmup_steps ({self.warmup_steps}), "
                f"not {self.total_steps}."
            )


def schedule(c: OptimizerConfig) -> optax.Schedule:
    """Learning rate of update 0, 1, ...; a warmup begins above 0, or its first update is lost."""
    span = max(c.total_steps - c.warmup_steps, 1)
    main = {
        "constant": optax.constant_schedule(c.learning_rate),
        "cosine": optax.cosine_decay_schedule(c.learning_rate, span, c.final_ratio),
        "linear": optax.linear_schedule(c.learning_rate, c.learning_rate * c.final_ratio, span),
    }[c.decay]
    if not c.warmup_steps:
        return main

    def rate(count: jax.Array) -> jax.Array:
        warm = c.learning_rate * (count + 1) / c.warmup_steps
        return jnp.where(count < c.warmup_steps, warm, main(count - c.warmup_steps))

    return rate


def optimizer(c: OptimizerConfig) -> optax.GradientTransformation:
    """The update rule of a group."""
    clip = optax.identity() if c.clip_norm is None else optax.clip_by_global_norm(c.clip_norm)
    adam = optax.adamw(
        schedule(c),
        b1=c.b1,
        b2=c.b2,
        eps=c.eps,
        weight_decay=c.weight_decay,
        mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
    )
    return optax.chain(clip, adam)


def final_factor(ending: jax.Array, step: jax.Array) -> jax.Array:
    """Factor of every learning rate during the final decay: 1 before, then linear to 0.

    Warmup, a constant rate and a short final decay (WSD, arXiv:2404.06395, section 4) need no
    number of steps in advance, and training can continue from the weights before the decay.

    Args:
        ending: int32 [2], first step of the decay and the step after its last; [0, 0] for none.
        step: of this update, from 0.

    Returns:
        float32 scalar, above 0 at every step before the end.
    """
    first, last = ending.astype(jnp.float32)
    left = (last - step) / jnp.maximum(last - first, 1)
    return jnp.where(last > 0, jnp.clip(left, 0, 1), 1.0)


def moving_average(average: Params, params: Params, step: Any, decay: float) -> Params:
    """The weights' exponential average after update `step` (from 0).

    The decay grows as (1 + t) / (10 + t) up to `decay`, so that the random start is soon
    forgotten.
    """
    t = jnp.asarray(step, jnp.float32)
    d = jnp.minimum(decay, (1 + t) / (10 + t))
    return jax.tree.map(lambda a, p: a + (1 - d) * (p - a), average, params)
