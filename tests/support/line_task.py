"""A small task and its data: a linear map learned from noisy pairs, with a running mean beside."""

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.training.task import Task


class LineTask(Task):
    """Two groups with losses of their own; extras count and average what was seen."""

    def __init__(self, width=8, poison=None):
        self.width, self.poison = width, poison

    def init(self, key, start=None):
        a, b = jax.random.normal(key, (2, self.width, self.width))
        params = {"one": {"kernel": a, "bias": jnp.zeros(self.width)}, "two": {"kernel": b}}
        return params, {"mean": jnp.zeros(self.width), "seen": jnp.zeros((), jnp.int32)}

    def gradients(self, params, extras, batch, key):
        noise = 0.01 * jax.random.normal(key, ())

        def loss(params):
            y = batch["x"] @ params["one"]["kernel"] + params["one"]["bias"] + noise
            z = batch["x"] @ params["two"]["kernel"]
            one, two = jnp.mean((y - batch["y"]) ** 2), jnp.mean((z + batch["y"]) ** 2)
            return one + two, {"one": one, "two": two}

        (total, parts), grads = jax.value_and_grad(loss, has_aux=True)(params)
        if self.poison is not None:
            # A batch whose first value is the poison makes the loss NaN.
            bad = batch["x"][0, 0] == self.poison
            total = jnp.where(bad, jnp.nan, total)
            grads = jax.tree.map(lambda g: jnp.where(bad, jnp.nan, g), grads)
        mean = 0.9 * extras["mean"] + 0.1 * jnp.mean(batch["x"], axis=0)
        extras = {"mean": mean, "seen": extras["seen"] + batch["x"].shape[0]}
        return grads, extras, {"loss": total} | parts


class LineBatches:
    """Batch i is a function of i; `end` batches in all, `poisoned` one begins with `poison`."""

    def __init__(self, rows=8, width=8, end=10**9, poisoned=None, poison=7.5):
        self.rows, self.width, self.end = rows, width, end
        self.poisoned, self.poison = poisoned, poison
        self.at = 0

    def __next__(self):
        if self.at >= self.end:
            raise StopIteration
        rng = np.random.default_rng(self.at)
        x = rng.standard_normal((self.rows, self.width)).astype(np.float32)
        if self.at == self.poisoned:
            x[0, 0] = self.poison
        self.at += 1
        return {"x": x, "y": x[:, ::-1].copy()}

    def state(self):
        return {"at": self.at}

    def restore(self, state):
        self.at = state["at"]
