"""A process killed at any moment leaves checkpoints that a run can go on from."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.training import checkpoints
from tests.support.helpers import ROOT
from tests.training.test_trainer import trainer


@pytest.mark.slow
def test_killed_runs_equal_an_uninterrupted_one(tmp_path):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    run, steps = tmp_path / "killed", []
    for wait in (0.0, 0.013, 0.031, 0.05, 0.11):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.killed_run", str(run)], env=environment
        )
        before = len(steps) and steps[-1]
        end = time.monotonic() + 300
        while True:
            assert time.monotonic() < end, "no checkpoint came"
            found = checkpoints.checkpoints(run / "checkpoints")
            if found and int(found[-1].name.removeprefix("step_")) > before:
                break
            time.sleep(0.005)
        time.sleep(wait)
        process.kill()
        process.wait()
        newest = checkpoints.checkpoints(run / "checkpoints")[-1]
        steps.append(int(newest.name.removeprefix("step_")))
        # Every checkpoint that bears a name is whole.
        assert trainer(run, steps=steps[-1]).run().step == steps[-1]
    assert steps == sorted(set(steps))
    whole = trainer(tmp_path / "whole", steps=steps[-1], save_every=10**6)
    whole.run()
    arrays = flatten_params(trainer(run).newest())
    for name, wanted in flatten_params(whole.newest()).items():
        np.testing.assert_array_equal(arrays[name], wanted, err_msg=name)
