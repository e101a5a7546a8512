"""What a task computes of one batch on the mesh of a trainer, fetched to the host."""

import jax
import numpy as np

from qtts_jax.io.checkpoint import flatten_params


def mesh_gradients(trainer, batch):
    """Gradients and extras after a microbatch as flat arrays, and metrics as numbers.

    The parameters are the first of the trainer, laid out as it lays them out.
    """
    state = trainer.programs.first()
    rows = jax.tree.map(lambda x: x[0], trainer.mesh.put([batch], 1))
    run = jax.jit(trainer.mesh.traced(trainer.task.gradients))
    grads, extras, metrics = run(state.params, state.extras, rows, jax.random.key(0))
    whole = jax.device_put((grads, extras), trainer.mesh.replicated)
    grads, extras = (
        {name: np.asarray(x) for name, x in flatten_params(tree).items()} for tree in whole
    )
    return grads, extras, {name: float(value) for name, value in metrics.items()}
