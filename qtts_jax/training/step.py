"""One training step as a pure function: microbatches, clipped updates, moving average."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from qtts_jax.functional import Params
from qtts_jax.training.optimizer import (
    OptimizerConfig,
    final_factor,
    moving_average,
    schedule,
)
from qtts_jax.training.state import TrainState
from qtts_jax.training.task import Extras, Groups, Metrics, Task


def make_step(
    task: Task,
    configs: Mapping[str, OptimizerConfig],
    optimizers: Mapping[str, optax.GradientTransformation],
    accumulate: int,
    average_decay: float | None,
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]:
    """The function (state, batch) -> (state, metrics).

    Beside the task's own metrics it gives `grad_norm/GROUP` (before clipping) and
    `learning_rate/GROUP`.

    Args:
        accumulate: microbatches of one step; they run one after the other (`lax.scan`), so only
            one of them is in memory.
    """

    def step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        grads, extras, metrics = _accumulated(
            task, state.params, state.extras, batch, key, accumulate
        )
        params, moments = {}, {}
        factor = final_factor(state.ending, state.step)
        for name, group in state.params.items():
            with jax.named_scope(f"update_{name}"):
                updates, moments[name] = optimizers[name].update(
                    grads[name], state.optimizer[name], group
                )
                # Every update is proportional to the rate, that of the weight decay too.
                updates = jax.tree.map(lambda x: factor * x, updates)
                params[name] = optax.apply_updates(group, updates)
            metrics[f"grad_norm/{name}"] = _norm(grads[name])
            rate = factor * schedule(configs[name])(state.step)
            metrics[f"learning_rate/{name}"] = jnp.asarray(rate, jnp.float32)
        average = state.average
        if average is not None and average_decay is not None:
            average = moving_average(average, params, state.step, average_decay)
        after = TrainState(
            state.step + 1, params, moments, extras, average, state.key, state.ending
        )
        return after, metrics

    return step


def _accumulated(
    task: Task,
    params: Groups,
    extras: Extras,
    batch: dict[str, jax.Array],
    key: jax.Array,
    count: int,
) -> tuple[Groups, Extras, Metrics]:
    """Mean gradients and metrics over `count` microbatches of equal size."""
    if count == 1:
        return task.gradients(params, extras, batch, key)

    def split(x: jax.Array) -> jax.Array:
        # Every device splits its own rows, so nothing moves between devices.
        return jnp.swapaxes(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 0, 1)

    def one(
        carry: tuple[Groups, Extras], item: tuple[dict[str, jax.Array], jax.Array]
    ) -> tuple[tuple[Groups, Extras], Metrics]:
        total, extras = carry
        microbatch, i = item
        grads, extras, metrics = task.gradients(
            params, extras, microbatch, jax.random.fold_in(key, i)
        )
        return (jax.tree.map(lambda a, g: a + g / count, total, grads), extras), metrics

    zeros = jax.tree.map(jnp.zeros_like, params)
    items = (jax.tree.map(split, batch), jnp.arange(count))
    (grads, extras), metrics = jax.lax.scan(one, (zeros, extras), items)
    return grads, extras, jax.tree.map(lambda x: jnp.mean(x, axis=0), metrics)


def _norm(tree: Params) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))
