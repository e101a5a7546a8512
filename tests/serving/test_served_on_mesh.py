"""A server and the lines of a batch on two virtual devices: what one device speaks."""

import json
import subprocess
import sys

import pytest

from tests.support.helpers import virtual_devices
from tests.support.served_on_mesh import load, spoken_alone


@pytest.mark.parametrize(
    ("family", "mesh"),
    [
        pytest.param("12hz", "2x1", marks=pytest.mark.slow),
        pytest.param("12hz", "1x2", marks=pytest.mark.by_hand),
        pytest.param("25hz", "2x1", marks=pytest.mark.by_hand),
        pytest.param("25hz", "1x2", marks=pytest.mark.by_hand),
    ],
)
def test_a_mesh_serves_what_one_device_speaks(converted, converted_25hz, family, mesh, tmp_path):
    checkpoint = (converted if family == "12hz" else converted_25hz)("custom_voice")
    alone = tmp_path / "alone.npz"
    spoken_alone(load(checkpoint, None), alone)
    arguments = [str(checkpoint), mesh, str(alone)]
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.served_on_mesh", *arguments],
        env=virtual_devices(2),
        stdout=subprocess.PIPE,
        check=True,
    )
    report = json.loads(run.stdout.splitlines()[-1])
    assert report.pop("steps") <= 1
    assert report == {"devices": 2, "compiled": 0, "shapes": True, "lines": True}
