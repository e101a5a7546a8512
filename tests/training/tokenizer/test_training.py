"""The tokenizer under the trainer: resumed, and spread over devices."""

import subprocess
import sys

import numpy as np
import pytest

from tests.support.helpers import virtual_devices

pytestmark = pytest.mark.slow

TRAIN = """
import sys
from dataclasses import replace
import numpy as np
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.training import checkpoints
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.mesh import MeshConfig
from qtts_jax.training.tokenizer.task import TokenizerTask
from qtts_jax.training.trainer import Trainer
from qtts_jax.training.trainer_config import TrainerConfig
from tests.support.small_tokenizer import FULL, toy_batch, toy_config

class Batches:
    def __init__(self):
        self.at = 0
    def __next__(self):
        self.at += 1
        return toy_batch(rows=8, seed=self.at)
    def state(self):
        return {"at": self.at}
    def restore(self, state):
        self.at = state["at"]

directory, devices, first, last = sys.argv[1], *map(int, sys.argv[2:])
rule = OptimizerConfig(1e-3)
config = TrainerConfig(
    steps=1, optimizers={"generator": rule, "discriminator": rule},
    mesh=MeshConfig(fsdp=devices, fsdp_min_size=64), average_decay=0.9,
    log_every=1, tensorboard=False, progress=False,
)
training = replace(FULL, balance=0.9)
task = TokenizerTask(toy_config(), training, dtype="float32", precision="highest")
for steps in range(first, last + 1):
    trainer = Trainer(task, Batches(), replace(config, steps=steps), directory)
    trainer.run()
newest = checkpoints.checkpoints(trainer.checkpoints)[-1]
state, _ = checkpoints.restore(newest, trainer.programs.shapes, trainer.programs.shardings)
np.savez(directory + "/state.npz", **{k: np.asarray(v) for k, v in flatten_params(state).items()})
"""


def train(directory, devices=1, first=3, last=3):
    """Every array after `last` steps, in sessions that end at each step from `first`."""
    directory.mkdir()
    command = [sys.executable, "-c", TRAIN, str(directory), *map(str, (devices, first, last))]
    subprocess.run(command, check=True, env=virtual_devices(devices))
    return dict(np.load(directory / "state.npz"))


def test_run_in_sessions_ends_in_the_same_state(tmp_path):
    whole, sessions = train(tmp_path / "whole"), train(tmp_path / "sessions", first=1)
    assert whole.keys() == sessions.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(sessions[name], value, err_msg=name)


def test_eight_devices_have_the_gradients_and_books_of_one(tmp_path):
    one, eight = (train(tmp_path / str(n), devices=n, first=1, last=1) for n in (1, 8))
    # Adam's first moment is the gradient, but for a factor, after one step.
    names = [name for name in one if "extras/" in name or "/mu/" in name]
    assert len(names) > 100
    for name in names:
        scale = np.abs(one[name]).max()
        np.testing.assert_allclose(eight[name], one[name], atol=1e-4 * scale, err_msg=name)
