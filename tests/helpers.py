"""What several tests share."""

import importlib.util
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
CHECKPOINTS = ("base", "custom_voice", "voice_design")


def load_detweights():
    """The numpy-only generator of weights and inputs that the golden files were made with."""
    spec = importlib.util.spec_from_file_location("detweights", GOLDEN / "detweights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_close(ours, official, relative=1e-4):
    """Equal to `relative` of the largest official value."""
    ours, official = np.asarray(ours), np.asarray(official)
    assert ours.shape == official.shape
    np.testing.assert_allclose(ours, official, rtol=0, atol=relative * np.abs(official).max())
