"""Eight virtual devices generate, decode, encode and stream what one does."""

import json
import subprocess
import sys

import pytest

from tests.support.helpers import virtual_devices

pytestmark = pytest.mark.slow  # minutes: programs of eight devices are not cached

# The module that runs takes any mesh: 4x2 and 1x8 are run by hand, for they take minutes each.
MESHES = {"12hz": ("8x1", "2x4"), "25hz": ("8x1",)}


def on_eight_devices(what, *meshes):
    command = [sys.executable, "-m", "tests.support.inference_on_eight_devices", what, *meshes]
    environment = virtual_devices(8)
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def assert_equal_to_one_device(report):
    assert report["codes"] and report["shapes"]
    assert report["audio"] < 1e-5  # relative to the largest sample: the order of float32 sums


def test_rows_of_a_batch_are_shared_by_the_data_axis():
    found = on_eight_devices("flops", "8x1")["8x1"]
    assert found["frames"] == pytest.approx(1 / 8, rel=0.02)
    assert found["decode"] == pytest.approx(1 / 8, rel=0.02)
    assert found["collectives"] == 0
    assert "P('data'" in found["cache"]


@pytest.mark.parametrize(("family", "meshes"), MESHES.items())
def test_a_mesh_gives_what_one_device_gives(family, meshes):
    report = on_eight_devices(family, *meshes)
    for name in meshes:
        assert_equal_to_one_device(report[name])


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_smaller_weights_are_split_like_the_weights_they_replace(kind):
    found = on_eight_devices(kind, "2x4")["2x4"]
    assert found["codes"]
    assert "model" in found["values"] and "model" in found["scale"]
