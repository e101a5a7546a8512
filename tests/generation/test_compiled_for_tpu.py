"""The frame loop as XLA compiles it for TPUs, without a TPU (where libtpu is installed)."""

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.support.helpers import virtual_devices

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu"),
]
# Bytes of the largest gather of a frame: codes and the like, never weights or caches.
SMALL = 8192


def compiled(topology, *cases):
    command = [sys.executable, "-m", "tests.support.compiled_for_tpu", topology, *cases]
    run = subprocess.run(
        command, env=virtual_devices(1), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def one_chip():
    return compiled("v5e:1x1", "1x1", "1", "1x1", "8")


@pytest.fixture(scope="module")
def eight_chips():
    return compiled("v5e:2x4", "8x1", "64", "2x4", "4")


def test_loops_are_those_over_frames_and_codebooks(one_chip, eight_chips):
    """A cache written by a scatter would be a loop over rows for every layer."""
    assert [case["loops"] for case in (one_chip | eight_chips).values()] == [2] * 4


def test_a_frame_is_written_into_caches_in_place(one_chip, eight_chips):
    """The talker's one layer by a kernel, the predictor's at one place, none by a selection."""
    alone = [one_chip["1x1 1"], one_chip["1x1 8"], eight_chips["8x1 64"]]
    assert [(case["cache_selects"], case["kernels"]) for case in alone] == [(0, 1)] * 3
    # XLA cannot split the kernel over a model axis: two selections, of keys and of values.
    split = eight_chips["2x4 4"]
    assert (split["cache_selects"], split["kernels"]) == (2, 0)


def test_one_request_has_two_rows(one_chip):
    assert one_chip["1x1 1"]["rows"] == 2


def test_eight_chips_share_the_rows(one_chip, eight_chips):
    assert eight_chips["8x1 64"]["flops"] == pytest.approx(one_chip["1x1 8"]["flops"], rel=0.01)
    assert eight_chips["8x1 64"]["collectives"] == 0


def test_a_model_axis_gathers_neither_weights_nor_logits(eight_chips):
    assert eight_chips["2x4 4"]["collectives"] > 0
    assert max(eight_chips["2x4 4"]["all_gathers"], default=0) <= SMALL
