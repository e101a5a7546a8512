"""A server and the lines of a batch on two virtual devices: what one device speaks."""

import json
import subprocess
import sys

import pytest

from tests.support.helpers import virtual_devices


@pytest.mark.slow
def test_a_mesh_serves_what_one_device_speaks(converted):
    # The module that runs takes any mesh and both families: 1x2 and 25 Hz are run by hand.
    name = "tests.support.served_on_mesh"
    command = [sys.executable, "-m", name, str(converted("custom_voice")), "2x1"]
    run = subprocess.run(command, env=virtual_devices(2), stdout=subprocess.PIPE, check=True)
    report = json.loads(run.stdout.splitlines()[-1])
    assert report.pop("steps") <= 1
    assert report == {"devices": 2, "compiled": 0, "shapes": True, "lines": True}
