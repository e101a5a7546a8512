"""The decay that ends a run."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.errors import ConfigError
from qtts_jax.training import checkpoints
from qtts_jax.training.log import read_metrics
from qtts_jax.training.optimizer import OptimizerConfig, final_factor
from qtts_jax.training.trainer import Trainer
from qtts_jax.training.trainer_config import TrainerConfig
from tests.support.line_task import LineBatches, LineTask

RULES = {"one": OptimizerConfig(0.01), "two": OptimizerConfig(0.02)}


def trainer(directory, **changes):
    config = {"steps": 10**6, "log_every": 1, "tensorboard": False, "progress": False} | changes
    return Trainer(LineTask(), LineBatches(), TrainerConfig(optimizers=RULES, **config), directory)


@pytest.fixture
def clock(monkeypatch):
    """Ten milliseconds pass from one look at the clock to the next."""
    ticks = itertools.count()
    fake = SimpleNamespace(monotonic=lambda: 0.01 * next(ticks))
    monkeypatch.setattr("qtts_jax.training.time_budget.time", fake)
    return fake


def test_rates_fall_on_a_line_and_are_never_zero_before_the_end():
    factors = [float(final_factor(jnp.array([4, 8]), jnp.array(s))) for s in range(9)]
    np.testing.assert_allclose(factors, [1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])
    assert float(final_factor(jnp.array([0, 0]), jnp.array(5))) == 1


def test_a_run_with_a_decay_ends_itself_in_time_and_goes_on_at_the_full_rate(tmp_path, clock):
    outcome = trainer(tmp_path).run(max_seconds=6, decay_seconds=2)
    assert outcome.finished and clock.monotonic() < 6
    rows = read_metrics(tmp_path)
    rates = np.array([row["learning_rate/two"] for row in rows])
    falling = np.flatnonzero(rates < rates[0])
    assert 10 < len(falling) < 0.6 * len(rates)
    steps = np.diff(rates[falling])
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)
    assert rates[-1] < 1.5 * -steps[0]
    again = trainer(tmp_path, steps=outcome.step + 3).run()
    assert again.step == outcome.step + 3
    assert read_metrics(tmp_path)[-1]["learning_rate/two"] == pytest.approx(0.02)


@pytest.mark.parametrize("decay_seconds", [None, 1.5])
def test_the_only_save_of_a_run_ends_in_its_time(tmp_path, clock, monkeypatch, decay_seconds):
    run = trainer(tmp_path, save_every=10**6)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(run.programs.shapes))
    # A disk on which the state takes a second is what the first save is planned for.
    monkeypatch.setattr("qtts_jax.training.time_budget._SAVE_BYTES_A_SECOND", size)
    save = checkpoints.save

    def slow(*arguments):
        end = clock.monotonic() + 2.5
        while clock.monotonic() < end:
            pass
        return save(*arguments)

    monkeypatch.setattr(checkpoints, "save", slow)
    outcome = run.run(max_seconds=10, decay_seconds=decay_seconds)
    assert outcome.step > 100 and clock.monotonic() < 10
    rates = np.array([row["learning_rate/two"] for row in read_metrics(tmp_path)])
    assert (np.count_nonzero(rates < rates[0]) > 20) == (decay_seconds is not None)


def test_a_save_that_is_thought_to_be_long_leaves_time_for_steps(tmp_path, clock, monkeypatch):
    monkeypatch.setattr("qtts_jax.training.time_budget._SAVE_BYTES_A_SECOND", 1.0)
    assert trainer(tmp_path).run(max_seconds=4).step > 50


def test_a_decay_longer_than_the_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="max_seconds"):
        trainer(tmp_path).run(max_seconds=1, decay_seconds=2)
