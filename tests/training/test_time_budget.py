"""What counts in a time limit, and what the progress bar shows of it."""

import io
import sys
from types import SimpleNamespace

import pytest

from qtts_jax.errors import TrainingError
from qtts_jax.training.progress import ProgressBar
from qtts_jax.training.time_budget import TimeBudget
from qtts_jax.training.trainer import Hook
from tests.support.line_task import LineBatches
from tests.training.test_trainer import trainer


class Clock:
    """A clock that only moves by `wait`."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    fake = SimpleNamespace(monotonic=clock.monotonic)
    monkeypatch.setattr("qtts_jax.training.time_budget.time", fake)
    return clock


def test_compiling_takes_nothing_of_the_budget(clock):
    budget = TimeBudget(10.0, None, size=0)
    with budget.compiling():
        clock.wait(100.0)
    assert not budget.is_up()
    clock.wait(9.0)
    assert budget.is_up()


def test_a_call_that_compiled_does_not_count_in_the_pace(clock):
    budget = TimeBudget(1000.0, None, size=0)
    for seconds in (1.0, 1.0, 2.0, 2.0):
        clock.wait(seconds)
        budget.stepped(1)
    before = budget.steps_left()
    with budget.compiling():
        clock.wait(500.0)
    clock.wait(0.0)
    budget.stepped(1)
    assert budget.steps_left() == before


def test_a_limit_shorter_than_compiling_still_makes_steps(tmp_path, clock, monkeypatch):
    run = trainer(tmp_path, steps=4)
    steps = run.programs.steps
    seen = []

    def slow(state, batches):
        # The first call of a shape compiles for a minute.
        clock.wait(0.1 if seen else 60.0)
        seen.append(0)
        return steps(state, batches)

    monkeypatch.setattr(run.programs, "steps", slow)
    outcome = run.run(max_seconds=10)
    assert (outcome.step, outcome.finished) == (4, True)


def test_data_without_a_batch_is_one_sentence(tmp_path):
    with pytest.raises(TrainingError, match="the data has no batch"):
        trainer(tmp_path, LineBatches(end=0)).run()


def bars(monkeypatch, run, **arguments):
    """All that the progress bar wrote."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    run.run(**arguments)
    return out.getvalue()


def test_the_bar_says_compiling_and_no_loss_before_there_is_one(tmp_path, monkeypatch):
    slow = Hook(1, lambda state, log: None)
    written = bars(monkeypatch, trainer(tmp_path, progress=True, hooks=[slow]))
    assert "compiling" in written and "nan" not in written
    assert "9/9" in written and "loss=" in written
    # After a resume too.
    again = bars(monkeypatch, trainer(tmp_path, progress=True, steps=12))
    assert "nan" not in again and "12/12" in again


def test_the_bar_measures_progress_against_the_time_limit(tmp_path, monkeypatch, clock):
    totals = []
    wait = Hook(1, lambda state, log: clock.wait(1.0))
    run = trainer(tmp_path, progress=True, steps=10**6, save_every=10**6, hooks=[wait])
    show = ProgressBar.show

    def watched(self, *rest):
        show(self, *rest)
        totals.append(self._bar.total)

    monkeypatch.setattr(ProgressBar, "show", watched)
    bars(monkeypatch, run, max_seconds=60)
    known = [total for total in totals if total is not None]
    assert totals[0] is None and known
    assert all(len(totals) * 0.7 < total < len(totals) * 1.3 for total in known)
