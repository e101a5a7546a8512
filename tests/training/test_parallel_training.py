"""Eight virtual devices train as one does: data parallel, FSDP, FSDP with a model axis."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from qtts_jax.errors import ConfigError
from qtts_jax.training.mesh import MeshConfig, TrainingMesh
from qtts_jax.training.trainer_config import TrainerConfig
from tests.support.helpers import virtual_devices
from tests.training.test_trainer import trainer

WAYS = ("data", "fsdp", "data and fsdp")


def on_eight_devices(what, directory, *meshes):
    command = [
        sys.executable,
        "-m",
        "tests.support.on_eight_devices",
        what,
        str(directory),
        *meshes,
    ]
    environment = virtual_devices(8)
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return on_eight_devices("gradients", tmp_path_factory.mktemp("meshes"), *WAYS)


def assert_equal_to_one_device(report):
    assert report["loss_error"] < 1e-6
    assert report["gradient_error"] < 1e-5


@pytest.mark.parametrize("way", WAYS)
def test_loss_and_gradients_on_eight_devices_equal_those_on_one(report, way):
    assert_equal_to_one_device(report[way])


@pytest.mark.slow
def test_fsdp_with_a_model_axis_equals_one_device(tmp_path):
    report = on_eight_devices("gradients", tmp_path, "fsdp and model")["fsdp and model"]
    assert_equal_to_one_device(report)
    assert report["share_on_a_device"] < 0.15


def test_fsdp_splits_parameters_and_moments(report):
    assert report["data"]["share_on_a_device"] == 1
    assert report["fsdp"]["share_on_a_device"] < 0.15
    assert 0.5 <= report["data and fsdp"]["share_on_a_device"] < 0.51


@pytest.mark.slow
def test_the_frame_kernel_runs_on_the_rows_of_each_device(tmp_path):
    assert on_eight_devices("frames", tmp_path) < 1e-5


def test_a_mesh_is_described_by_its_axes():
    assert MeshConfig.parse("data=4,fsdp=2") == MeshConfig(data=4, fsdp=2)
    with pytest.raises(ConfigError, match="data=2,fsdp=2,model=2"):
        MeshConfig.parse("rows=4")


@pytest.mark.slow
def test_the_first_state_of_a_mesh_is_made_where_it_lies(tmp_path):
    found = on_eight_devices("first", tmp_path, "fsdp and model")
    assert set(found) == {"random", "given", "run"}
    for case in found.values():
        assert case["traced"] and all(case["traced"]) and case["in_place"]
        assert case["error"] < 1e-6


@pytest.mark.slow
def test_a_checkpoint_of_a_mesh_goes_on_on_one_device(tmp_path):
    found = on_eight_devices("resume", tmp_path, "fsdp and model")
    # Adam turns the rounding of a gradient near zero into a step of up to the learning rate, so
    # single parameters may differ by a few of these; on the whole they agree.
    assert found["moved"] > 2e-3
    assert found["mean_error"] < 1e-3 * found["moved"]


def test_a_mesh_larger_than_the_machine_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="devices"):
        trainer(tmp_path, mesh=MeshConfig(data=1024))


def test_a_model_axis_needs_declared_axes(monkeypatch):
    mesh = TrainingMesh(MeshConfig())
    mesh.config = MeshConfig(model=2)
    with pytest.raises(ConfigError, match="no logical axes"):
        mesh.params({"kernel": np.zeros((4, 4))}, None)


def test_the_default_is_one_device():
    config = TrainerConfig(steps=1, optimizers={})
    assert TrainingMesh(config.mesh).mesh.size == 1 <= jax.device_count()
