"""A run in three sessions against an uninterrupted one, for tasks of any kind."""

from dataclasses import replace

import numpy as np

from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.trainer import Trainer
from qtts_jax.training.trainer_config import TrainerConfig


class Seeded:
    """Endless batches `make_batch(seed=1), make_batch(seed=2), ...` for a trainer."""

    def __init__(self, make_batch):
        self.make_batch, self.at = make_batch, 0

    def __next__(self):
        self.at += 1
        return self.make_batch(seed=self.at)

    def state(self):
        return {"at": self.at}

    def restore(self, state):
        self.at = state["at"]


def assert_sessions_end_in_the_same_state(make_task, make_batch, groups, directory, **settings):
    """Train the parameter groups for three steps at once and in three sessions."""
    config = TrainerConfig(
        steps=1,
        optimizers={group: OptimizerConfig(1e-3) for group in groups},
        tensorboard=False,
        progress=False,
        **settings,
    )

    def train(name, first):
        for steps in range(first, 4):
            run = replace(config, steps=steps)
            trainer = Trainer(make_task(), Seeded(make_batch), run, directory / name)
            trainer.run()
        return flatten_params(trainer.newest())

    whole, sessions = train("whole", 3), train("sessions", 1)
    for name, value in whole.items():
        np.testing.assert_array_equal(sessions[name], value, err_msg=name)
