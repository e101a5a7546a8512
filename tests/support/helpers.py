"""What several tests share."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from convert.faults import Faults
from convert.models import build_model
from convert.rules import plan
from qtts_jax.functional import abstract
from qtts_jax.io.checkpoint import flatten_params
from tests.support.quick_compilation import UNSPLIT

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
CHECKPOINTS = ("base", "custom_voice", "voice_design")


def virtual_devices(count):
    """The environment of a process with so many virtual devices on the CPU, which imports tests."""
    # Programs of meshes are compiled in parts, as when their tolerances were found: compiled in one
    # piece, other roundings move a metric of the 25 Hz encoder by 5e-5 between one device and four.
    flags = os.environ.get("XLA_FLAGS", "").replace(UNSPLIT, "")
    environment = os.environ | {
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={count}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    if count > 1:
        # A program of several such devices that comes out of the cache does not keep its
        # collectives in order (JAX 0.10.2), and hangs where a mesh has two axes.
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    return environment


def released_params(data, module, config, detweights, seed):
    """Weights of a config at released widths by the converter's table, with no file between."""
    model = build_model(data, "released")
    arrays = {name: np.empty(shape, np.float32) for name, shape in model.shapes.items()}
    for part in plan(model.rules, model.shapes, Faults()):
        view = part.view(arrays[part.target])
        view[...] = detweights.tensor(seed, part.source, part.shape).reshape(view.shape)
    tree = abstract(module, config)[1]
    leaves = [jnp.asarray(arrays[name]) for name in flatten_params(tree)]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def assert_close(ours, official, relative=1e-4):
    """Equal to `relative` of the largest official value."""
    ours, official = np.asarray(ours), np.asarray(official)
    assert ours.shape == official.shape
    np.testing.assert_allclose(ours, official, rtol=0, atol=relative * np.abs(official).max())
