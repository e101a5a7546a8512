"""SIGTERM and Ctrl-C: a checkpoint, a sentence, and the handlers as they were."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from qtts_jax.errors import TrainingError
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.training import checkpoints
from qtts_jax.training.stop_signals import StopSignals
from qtts_jax.training.trainer import Hook
from tests.support.helpers import ROOT
from tests.training.test_trainer import trainer

BOTH = [signal.SIGTERM, signal.SIGINT]


def send(number, at=None):
    """A hook that signals the own process, at one step or at every step."""

    def run(state, log):
        if at is None or int(state.step) == at:
            os.kill(os.getpid(), number)

    return Hook(1, run)


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_saves_the_step_under_way_and_says_where(tmp_path, capfd, number):
    before = [signal.getsignal(n) for n in BOTH]
    outcome = trainer(tmp_path, hooks=[send(number, at=3)]).run()
    assert (outcome.step, outcome.finished, outcome.signal) == (3, False, number.name)
    assert checkpoints.checkpoints(tmp_path / "checkpoints") == [outcome.checkpoint]
    assert str(outcome.checkpoint) in capfd.readouterr().out
    assert [signal.getsignal(n) for n in BOTH] == before
    # The run that goes on equals one that was never stopped.
    trainer(tmp_path).run()
    trainer(tmp_path / "whole").run()
    arrays = flatten_params(trainer(tmp_path).newest())
    for name, wanted in flatten_params(trainer(tmp_path / "whole").newest()).items():
        np.testing.assert_array_equal(arrays[name], wanted, err_msg=name)


def test_a_signal_at_the_last_step_changes_nothing(tmp_path):
    outcome = trainer(tmp_path, hooks=[send(signal.SIGTERM, at=9)]).run()
    assert (outcome.step, outcome.finished, outcome.signal) == (9, True, None)


def test_a_signal_before_the_first_step_is_one_sentence_and_no_checkpoint(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    first, kill = run.programs.first, lambda: os.kill(os.getpid(), signal.SIGTERM)
    monkeypatch.setattr(run.programs, "first", lambda: kill() or first())
    with pytest.raises(TrainingError, match="SIGTERM came before the first step"):
        run.run()
    assert not checkpoints.checkpoints(tmp_path / "checkpoints")


@pytest.fixture
def interruptible():
    """A process started in the background of a script ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_signal_acts_as_usual(interruptible):
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def process(directory, *arguments):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.support.signalled_run", str(directory), *arguments]
    out = subprocess.PIPE
    started = subprocess.Popen(command, env=environment, stdout=out, stderr=out, text=True)
    assert started.stdout.readline() == "step\n"
    return started


@pytest.mark.slow
@pytest.mark.parametrize("number", BOTH)
def test_a_process_that_is_signalled_leaves_its_newest_step(tmp_path, number):
    run = process(tmp_path)
    run.send_signal(number)
    out, error = run.communicate(timeout=120)
    (kept,) = checkpoints.checkpoints(tmp_path / "checkpoints")
    assert run.returncode == 0 and str(kept) in out, error
    assert f"{number.name}: saving a checkpoint; a second signal ends at once" in error
    step = int(kept.name.removeprefix("step_"))
    assert trainer(tmp_path, steps=step).run().step == step


@pytest.mark.slow
def test_a_process_that_is_signalled_twice_ends_at_once(tmp_path):
    run = process(tmp_path, "hang")
    run.send_signal(signal.SIGTERM)
    # The sentence on stderr follows the first signal.
    while "saving" not in run.stderr.readline():
        pass
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    assert run.returncode == -signal.SIGTERM
