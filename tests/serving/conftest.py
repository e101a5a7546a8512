"""A small model and an engine that serves it, shared by the tests of this folder."""

import jax
import pytest

from qtts_jax.serving.engine import Engine
from qtts_jax.serving.settings import EngineSettings

SETTINGS = EngineSettings(
    rows=(1, 4), chunk_frames=(1, 4), max_prompt=64, max_text=64, max_seconds=4.0, max_waiting=8
)


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_are_dropped_in_time():
    """Keep all programs: tests assert that a running engine compiles none."""


@pytest.fixture(scope="session")
def model(tts):
    return tts("custom_voice", exact_reference=False)


@pytest.fixture(scope="session")
def engine(model):
    engine = Engine(model, SETTINGS)
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture(scope="session")
def clones(tts):
    """An engine of a checkpoint that clones."""
    settings = EngineSettings(
        rows=(1,),
        chunk_frames=(1,),
        max_prompt=64,
        max_text=64,
        max_seconds=2.0,
        max_reference_seconds=0.9,
    )
    engine = Engine(tts("base", exact_reference=False), settings)
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def compiled():
    """Names of the programs that are compiled or loaded from the cache while a test runs."""
    names = []

    def count(event, seconds, **labels):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(labels)

    jax.monitoring.register_event_duration_secs_listener(count)
    yield names
    jax.monitoring.unregister_event_duration_listener(count)
