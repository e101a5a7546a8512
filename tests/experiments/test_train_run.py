"""The shared part of the training commands: the dtype of a CPU, signals, runs without a step."""

import argparse
import os
import signal
import sys

import jax
import pytest

from experiments.train import run
from qtts_jax.errors import TrainingError
from qtts_jax.training import checkpoints
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.trainer import Hook
from qtts_jax.training.trainer_config import TrainerConfig
from tests.support.line_task import LineBatches, LineTask

RULE = OptimizerConfig(0.02)
BASE = TrainerConfig(
    steps=9, optimizers={"one": RULE, "two": RULE}, tensorboard=False, progress=False
)


def train(out, written, *options, hooks=()):
    parser = argparse.ArgumentParser()
    run.add_arguments(parser, BASE)
    args = parser.parse_args(["--out", str(out), "--no-tensorboard", *options])
    run.train(args, BASE, LineTask(), LineBatches(), hooks, run.Stopwatch(), written.append)


def test_the_dtype_of_a_cpu_is_float32(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert run.default_dtype() == "float32"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert run.default_dtype() == "bfloat16"


@pytest.mark.parametrize("several", [True, False])
def test_parsed_options_have_a_dtype(monkeypatch, several):
    parser = argparse.ArgumentParser()
    run.add_arguments(parser, BASE, several)
    monkeypatch.setattr(sys, "argv", ["command", "--out", "run"])
    args = run.parse(parser)
    assert args.dtype == run.default_dtype()
    assert hasattr(args, "coordinator") == several


def test_a_session_writes_its_model_and_weights(tmp_path):
    written = []
    train(tmp_path, written)
    assert [int(state.step) for state in written] == [9]
    assert (tmp_path / "weights/pieces.json").is_file()


def test_a_session_without_a_step_writes_no_model(tmp_path):
    written = []
    with pytest.raises(TrainingError, match="time was up before the first step"):
        train(tmp_path, written, "--minutes", "0")
    assert not written and not (tmp_path / "weights").exists()


def test_a_signal_leaves_a_checkpoint_and_its_exit_status(tmp_path):
    written = []
    kill = Hook(2, lambda state, log: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        train(tmp_path, written, hooks=[kill])
    assert ended.value.code == 128 + signal.SIGTERM and not written
    kept = checkpoints.checkpoints(tmp_path / "checkpoints")
    assert [p.name for p in kept] == ["step_00000002"]
