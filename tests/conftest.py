"""Shared fixtures: golden checkpoints, converted once a session, and models loaded from them."""

import ctypes
import functools
import gc
import itertools
import json
import os
import shutil
from pathlib import Path

# Before JAX is imported: the workers and later runs share compiled programs. No lock is needed: who
# reads what another worker has half written fails to unpack it, and compiles the program itself.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache" / "tests")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import jax
import numpy as np
import pytest

from convert.to_orbax import to_orbax
from qtts_jax import QwenTTS
from qtts_jax.tts import checked_request
from tests.golden_tools import detweights as weights_by_name
from tests.support.checkpoint_25hz import shrink_tokenizer, write_released
from tests.support.helpers import CHECKPOINTS, GOLDEN
from tests.support.quick_compilation import pytest_configure as pytest_configure
from tests.support.read_once import read_once
from tests.support.whole_files import pytest_xdist_make_scheduler as pytest_xdist_make_scheduler

# A process may have 65,530 memory mappings (Linux), and every compiled program takes a few: after
# some thousand programs the compiler crashes.
MAPPINGS = Path("/proc/self/maps")
MOST_MAPPINGS = 12_000


def pytest_collection_finish():
    """Collect garbage seldom: tracing makes many objects, and each full pass walks all of JAX."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_are_dropped_in_time():
    """After a module, forget programs if there are many; the compilation cache still has them."""
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()
        gc.collect()
        # The C library keeps most of what is freed, here gigabytes, unless it is trimmed.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)


@pytest.fixture(autouse=True)
def drawn_seeds_are_known(monkeypatch):
    """Who names no seed gets 1, 2, ... in each test: speech does not end early by chance."""
    numbers = itertools.count(1)
    monkeypatch.setattr(checked_request.secrets, "randbelow", lambda limit: next(numbers) % limit)


@pytest.fixture(scope="session", autouse=True)
def parameters_are_read_once():
    with pytest.MonkeyPatch.context() as monkeypatch:
        read_once(monkeypatch)
        yield


@pytest.fixture(scope="session")
def detweights():
    return weights_by_name


@pytest.fixture(scope="session")
def golden_index():
    return json.loads((GOLDEN / "index.json").read_text())


@pytest.fixture(scope="session")
def golden():
    """Load a golden file: `golden("talker_base")["mask"]`."""
    return functools.lru_cache(lambda name: dict(np.load(GOLDEN / f"{name}.npz")))


@pytest.fixture(scope="session")
def released(tmp_path_factory, detweights):
    """A folder with the golden checkpoints in the released layout; read only.

    `base`, `custom_voice` and `voice_design` are whole, `tokenizer_25hz` is a tokenizer alone.
    """
    folder = tmp_path_factory.mktemp("released")
    for name in (*CHECKPOINTS, "tokenizer_25hz"):
        shutil.copytree(GOLDEN / "ckpt" / name, folder / name, copy_function=shutil.copyfile)
    detweights.materialize(folder)
    return folder


@pytest.fixture(scope="session")
def converted(tmp_path_factory, released):
    """`converted(name)`: the directory of a golden checkpoint after conversion; read only."""
    folder = tmp_path_factory.mktemp("converted")

    @functools.cache
    def convert(name):
        to_orbax(released / name, folder / name)
        return folder / name

    return convert


@pytest.fixture(scope="session")
def tts(converted):
    """`tts(name)`: a golden checkpoint in float32 with every option in the official form."""

    @functools.cache
    def load(name, exact_reference=True):
        return QwenTTS.from_pretrained(
            converted(name), dtype="float32", exact_reference=exact_reference
        )

    return load


@pytest.fixture(scope="session")
def converted_25hz(tmp_path_factory, detweights):
    """`converted_25hz(kind)`: a small 25 Hz checkpoint after conversion; read only."""
    folder = tmp_path_factory.mktemp("25hz")

    @functools.cache
    def convert(kind, overrides):
        name = "_".join([kind, *(f"{key}{value}" for key, value in overrides)])
        write_released(kind, folder / f"released_{name}", detweights, overrides)
        to_orbax(folder / f"released_{name}", folder / name)
        shrink_tokenizer(folder / name / "speech_tokenizer")
        return folder / name

    return lambda kind, overrides=(): convert(kind, overrides)
