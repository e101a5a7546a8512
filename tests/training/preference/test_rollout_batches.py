"""Batches of the policy's own speech: groups, resuming, several updates a set, faults."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from qtts_jax.errors import ConfigError, DataError, TrainingError
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.training import checkpoints
from qtts_jax.training.log import read_metrics
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.preference.rollout_batches import RolloutConfig
from qtts_jax.training.trainer import Trainer
from qtts_jax.training.trainer_config import TrainerConfig
from tests.support.helpers import virtual_devices
from tests.support.small_policy import (
    SAMPLING,
    SETS,
    prompts,
    rollout_batches,
    share_of_loud_codes,
    task,
)

RULE = OptimizerConfig(3e-3, weight_decay=0.0)
TASK = task()


def batches(*arguments, **changes):
    return rollout_batches(TASK, *arguments, **changes)


def trainer(directory, steps, made=None, **changes):
    settings = TrainerConfig(
        steps, {"talker": RULE}, log_every=1, save_every=1000, tensorboard=False, progress=False
    )
    return Trainer(TASK, made or batches(), dataclasses.replace(settings, **changes), directory)


def followed(made):
    made.follow(*TASK.init(jax.random.key(0)))
    return made


@pytest.fixture(scope="module")
def first_set():
    made = followed(batches())
    return [next(made), next(made)]


def test_a_set_has_groups_of_one_prompt_in_two_batches(first_set):
    rows = {name: np.concatenate([b[name] for b in first_set]) for name in first_set[0]}
    assert len(rows["reward"]) == 8
    for prompt in np.unique(rows["score/prompt"]):
        group = rows["score/prompt"] == prompt
        assert group.sum() == 4
        wanted = rows["reward"][group] - rows["reward"][group].mean()
        np.testing.assert_allclose(rows["advantage"][group], wanted, atol=1e-6)
    assert len({tuple(codes.ravel()) for codes in rows["codes"]}) == 8


def test_log_probabilities_of_a_set_are_those_of_the_model_that_drew_it(first_set):
    params, extras = TASK.init(jax.random.key(0))
    program = jax.jit(TASK.loss)
    for batch in first_set:
        metrics = program(params, extras, batch, jax.random.key(0))[1]
        assert metrics["clipped"] == 0 and abs(metrics["kl"]) < 1e-6
        wanted = np.mean(batch["weight"] * batch["advantage"])
        np.testing.assert_allclose(metrics["objective"], wanted, atol=1e-5)


def test_one_update_a_set_needs_no_earlier_log_probabilities():
    batch = next(followed(batches(dataclasses.replace(SETS, updates=1))))
    assert "drawn_log_probs" not in batch and len(batch["reward"]) == 8


def test_flat_groups_have_no_weight_and_the_others_carry_the_mean():
    def only_one_prompt_differs(numbers, speech):
        reward = share_of_loud_codes(numbers, speech)["reward"]
        return {"reward": np.where(np.asarray(numbers) == numbers[0], reward, 1.0)}

    one = dataclasses.replace(SETS, updates=1)
    batch = next(followed(batches(one, only_one_prompt_differs)))
    assert sorted(batch["weight"].tolist()) == [0] * 4 + [2] * 4
    assert (batch["advantage"][batch["weight"] == 0] == 0).all()


@pytest.mark.slow
def test_training_raises_the_reward(tmp_path):
    trainer(tmp_path, 30, batches(RolloutConfig(prompts=3, samples=16))).run()
    rewards = [row["reward"] for row in read_metrics(tmp_path)]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.2


def test_a_run_resumed_within_a_set_equals_an_uninterrupted_one(tmp_path):
    outcomes = []
    for name, sessions in (("whole", [3]), ("parts", [1, 3])):
        for steps in sessions:
            trainer(tmp_path / name, steps).run()
        t = trainer(tmp_path / name, 3)
        run = json.loads((checkpoints.checkpoints(t.checkpoints)[-1] / "run.json").read_text())
        arrays = {k: np.asarray(x) for k, x in flatten_params(t.newest()).items()}
        logged = [{k: v for k, v in row.items() if k not in ("time", "steps_per_second")}
                  for row in read_metrics(tmp_path / name)]  # fmt: skip
        outcomes.append((arrays, run, logged))
    (whole, run, logged), (parts, parts_run, parts_logged) = outcomes
    assert run == parts_run and logged == parts_logged
    for name, array in whole.items():
        np.testing.assert_array_equal(parts[name], array, err_msg=name)


@pytest.mark.slow
def test_a_mesh_speaks_and_learns_as_one_device(tmp_path):
    command = [sys.executable, "-m", "tests.support.policy_on_devices", str(tmp_path)]
    run = subprocess.run(command, env=virtual_devices(4), stdout=subprocess.PIPE, text=True)
    assert run.returncode == 0
    found = json.loads(run.stdout.splitlines()[-1])
    for mesh, steps in found["mesh"].items():
        for one, other in zip(found["one"], steps, strict=True):
            assert other == pytest.approx(one, rel=1e-4, abs=1e-5), mesh


def test_faults_are_named(tmp_path):
    with pytest.raises(ConfigError, match="3 prompts are too few for sets of 4"):
        batches(RolloutConfig(prompts=4))
    other = prompts(dataclasses.replace(SAMPLING, temperature=0.5))
    with pytest.raises(ConfigError, match="prompt 0 is sampled by"):
        batches(requests=other)
    with pytest.raises(ConfigError, match="do not divide into 3 updates"):
        RolloutConfig(2, 4, 3)
    with pytest.raises(ConfigError, match="groups of 2"):
        RolloutConfig(samples=1)
    made = batches()
    with pytest.raises(DataError, match="began with other prompts"):
        made.restore(batches(dataclasses.replace(SETS, seed=1)).state())
    with pytest.raises(TrainingError, match="use steps_per_call=1"):
        next(made)
    nan = followed(batches(scorer=lambda n, s: {"reward": np.full(len(n), np.nan)}))
    with pytest.raises(TrainingError, match="the score reward is not one finite number"):
        next(nan)
