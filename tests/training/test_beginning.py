"""Runs that begin with the weights of another."""

import shutil

import jax
import numpy as np
import pytest

from qtts_jax.errors import CheckpointError
from qtts_jax.training import checkpoints
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.trainer import Trainer
from qtts_jax.training.trainer_config import TrainerConfig
from tests.support.line_task import LineBatches, LineTask

RULES = {"one": OptimizerConfig(0.01), "two": OptimizerConfig(0.02)}


def trainer(directory, start=None, **changes):
    config = TrainerConfig(
        optimizers=RULES, log_every=1, tensorboard=False, progress=False, **changes
    )
    return Trainer(LineTask(), LineBatches(), config, directory, start=start)


@pytest.mark.parametrize("average_decay", [None, 0.9])
def test_a_run_begins_with_the_weights_and_extras_of_another(tmp_path, average_decay):
    first = trainer(tmp_path / "a", steps=5, average_decay=average_decay)
    first.run()
    weights = first.save_weights(tmp_path / "weights")
    second = trainer(tmp_path / "b", start=weights, steps=1, average_decay=average_decay)
    state = second._resume(None)[0]
    kept = first.newest()
    expected = kept.params if average_decay is None else kept.average
    jax.tree.map(np.testing.assert_array_equal, state.params, expected)
    jax.tree.map(np.testing.assert_array_equal, state.extras, kept.extras)
    assert int(state.step) == 0
    assert second.run().finished


def test_saved_weights_are_those_of_the_run_whatever_lay_there(tmp_path, monkeypatch):
    weights = tmp_path / "weights"
    old = trainer(tmp_path / "run", steps=5)
    old.run()
    old.save_weights(weights)
    # The same steps again, with other weights; then fewer steps.
    for steps, seed in ((5, 1), (3, 2)):
        shutil.rmtree(tmp_path / "run/checkpoints")
        run = trainer(tmp_path / "run", steps=steps, seed=seed)
        run.run()
        saved = run.save_weights(weights)
        assert list(weights.iterdir()) == [saved] and saved.name == f"step_{steps:08d}"
        other = trainer(tmp_path / "other", start=saved, steps=1)
        jax.tree.map(
            np.testing.assert_array_equal, other._resume(None)[0].params, run.newest().params
        )

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_params", fail)
    with pytest.raises(CheckpointError, match="full"):
        run.save_weights(weights)
    assert list(weights.iterdir()) == [saved]
