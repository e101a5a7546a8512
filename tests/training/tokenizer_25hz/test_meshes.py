"""The tasks of the 25 Hz tokenizer on meshes of virtual devices compute what they do on one."""

import json
import subprocess
import sys

import pytest

from tests.support.helpers import virtual_devices

WAYS = ("data", "data and fsdp")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["encoder", "flow", "vocoder"])
def test_gradients_extras_and_metrics_on_a_mesh_are_those_of_one_device(task, tmp_path):
    command = [
        sys.executable, "-m", "tests.support.tokenizer_25hz_on_devices", str(tmp_path), task, *WAYS
    ]  # fmt: skip
    run = subprocess.run(
        command, env=virtual_devices(4), stdout=subprocess.PIPE, text=True, check=True
    )
    report = json.loads(run.stdout.splitlines()[-1])
    assert report.keys() == set(WAYS)
    for way, errors in report.items():
        assert errors["metrics"] < 1e-5, way
        assert errors["gradients"] < 1e-4, way
        assert errors["extras"] < 1e-5, way
