"""The note that says why nothing happens yet."""

import time

import jax
import pytest

from qtts_jax.cli import compile_note as notes


@pytest.fixture
def slow_compiler(monkeypatch):
    """Compilations of 0.2 s against a patience of 0.05 s."""
    monkeypatch.setattr(notes, "PATIENCE", 0.05)

    def compile_one(seconds):
        jax.monitoring.record_event_duration_secs(notes._BEGIN, 0.0)
        time.sleep(seconds)
        jax.monitoring.record_event_duration_secs(notes._END, seconds)

    return compile_one


def test_a_long_compilation_prints_one_note(slow_compiler, capsys):
    with notes.compile_note():
        for _ in range(3):
            slow_compiler(0.2)
    slow_compiler(0.2)  # outside
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "compiling for the first use of this checkpoint" in lines[0]


def test_quick_programs_print_none(slow_compiler, capsys):
    with notes.compile_note():
        slow_compiler(0.0)
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_the_events_are_those_of_jax(monkeypatch):
    seen = []
    listener = lambda event, *_, **__: seen.append(event)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        jax.jit(lambda x: x * 41 + 17)(1.0)
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    assert seen.index(notes._BEGIN) < seen.index(notes._END)
