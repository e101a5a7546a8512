"""The loop: resuming, accumulation, stopping, and what remains after a fault."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.errors import CheckpointError, ConfigError, TrainingError
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.training import checkpoints
from qtts_jax.training.log import read_metrics
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.trainer import Hook, Trainer
from qtts_jax.training.trainer_config import TrainerConfig
from tests.support.line_task import LineBatches, LineTask

RULE = OptimizerConfig(0.02, warmup_steps=3, decay="cosine", total_steps=40)
CONFIG = TrainerConfig(
    steps=9,
    optimizers={"one": RULE, "two": dataclasses.replace(RULE, learning_rate=0.01)},
    average_decay=0.99,
    log_every=1,
    save_every=4,
    tensorboard=False,
    progress=False,
)


def trainer(directory, batches=None, task=None, hooks=(), **changes):
    config = dataclasses.replace(CONFIG, **changes)
    return Trainer(task or LineTask(), batches or LineBatches(), config, directory, hooks)


def final_state(directory, **changes):
    """All arrays of the newest checkpoint by name."""
    t = trainer(directory, **changes)
    run = json.loads((checkpoints.checkpoints(t.checkpoints)[-1] / "run.json").read_text())
    return {name: np.asarray(x) for name, x in flatten_params(t.newest()).items()}, run


def losses(directory):
    return {row["step"]: row["loss"] for row in read_metrics(directory)}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    trainer(directory).run()
    return directory


def test_training_lowers_the_loss(tmp_path):
    constant = OptimizerConfig(0.02)
    rules = {"one": constant, "two": constant}
    outcome = trainer(tmp_path, optimizers=rules, steps=300, save_every=1000, log_every=50).run()
    assert (outcome.step, outcome.finished) == (300, True)
    found = losses(tmp_path)
    assert found[300] < 0.3 * found[50]


@pytest.mark.parametrize("first_session", [4, 6])
def test_resumed_training_equals_uninterrupted_training_bit_by_bit(
    tmp_path, uninterrupted, first_session
):
    trainer(tmp_path, steps=first_session).run()
    outcome = trainer(tmp_path).run()
    assert outcome.step == 9
    arrays, run = final_state(tmp_path)
    wanted, wanted_run = final_state(uninterrupted)
    assert run == wanted_run
    assert arrays.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)
    assert losses(tmp_path) == losses(uninterrupted)


def test_a_run_without_time_for_a_step_is_an_error_and_leaves_nothing(tmp_path, uninterrupted):
    with pytest.raises(TrainingError, match="time was up before the first step"):
        trainer(tmp_path).run(max_seconds=0.0)
    assert not checkpoints.checkpoints(tmp_path / "checkpoints")
    outcome = trainer(tmp_path).run(max_seconds=600)
    assert (outcome.step, outcome.finished) == (9, True)
    assert final_state(tmp_path)[1] == final_state(uninterrupted)[1]
    assert losses(tmp_path) == losses(uninterrupted)


def test_a_finished_run_is_left_as_it_is(tmp_path):
    first = trainer(tmp_path).run()
    before = (first.checkpoint / "run.json").stat().st_mtime_ns
    assert trainer(tmp_path).run() == first
    assert (first.checkpoint / "run.json").stat().st_mtime_ns == before


def test_accumulation_equals_one_large_batch(tmp_path):
    class Quiet(LineTask):
        """Without the noise, whose key differs from microbatch to microbatch."""

        def gradients(self, params, extras, batch, key):
            return super().gradients(params, extras, batch, jax.random.key(0))

    for name, count in (("one", 1), ("four", 4)):
        trainer(tmp_path / name, task=Quiet(), accumulate=count, steps=4).run()
    whole, _ = final_state(tmp_path / "one", accumulate=1)
    parts, _ = final_state(tmp_path / "four", accumulate=4)
    for name in whole:
        if not name.startswith("extras"):
            np.testing.assert_allclose(parts[name], whole[name], atol=1e-6, err_msg=name)
    assert parts["extras/seen"] == whole["extras/seen"] == 32


def test_values_that_are_not_finite_stop_with_the_last_good_checkpoint(tmp_path):
    data = LineBatches(poisoned=6)  # the seventh step
    with pytest.raises(TrainingError, match=r"step 7 gave nan for .*loss.*step_00000004;"):
        trainer(tmp_path, data, LineTask(poison=data.poison)).run()
    kept = checkpoints.checkpoints(tmp_path / "checkpoints")
    assert [p.name for p in kept] == ["step_00000004"]
    arrays, _ = final_state(tmp_path)
    assert all(np.isfinite(x).all() for x in arrays.values())
    assert max(losses(tmp_path)) == 6
    # With the data corrected, the run goes on.
    assert trainer(tmp_path).run().step == 9


def test_a_fault_in_the_step_before_a_checkpoint_keeps_it_from_being_saved(tmp_path):
    data = LineBatches(poisoned=3)
    with pytest.raises(TrainingError, match="no checkpoint was made"):
        trainer(tmp_path, data, LineTask(poison=data.poison)).run()
    assert checkpoints.checkpoints(tmp_path / "checkpoints") == []


def test_a_loss_that_runs_away_stops_training(tmp_path):
    class Rising(LineTask):
        def gradients(self, params, extras, batch, key):
            grads, extras, metrics = super().gradients(params, extras, batch, key)
            rise = extras["seen"].astype(float) / 8
            return grads, extras, metrics | {"loss": 1000 + rise}

    with pytest.raises(TrainingError, match="diverged at step"):
        trainer(tmp_path, task=Rising(), steps=300, divergence_margin=5.0, save_every=50).run()
    assert checkpoints.checkpoints(tmp_path / "checkpoints")


def test_training_ends_with_the_data(tmp_path):
    outcome = trainer(tmp_path, LineBatches(end=5)).run()
    assert (outcome.step, outcome.finished) == (5, True)


def test_interruption_loses_the_steps_since_the_last_checkpoint(tmp_path, uninterrupted):
    def interrupt(state, log):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, hooks=[Hook(7, interrupt)]).run()
    kept = checkpoints.checkpoints(tmp_path / "checkpoints")
    assert [p.name for p in kept] == ["step_00000004"]
    # What a kill in the middle of a save or of a removal leaves behind.
    for leftover in ("step_00000006.partial-123", "step_00000002.removed-9"):
        (tmp_path / "checkpoints" / leftover / "params").mkdir(parents=True)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 8, "lo')
    trainer(tmp_path).run()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "step_00000008",
        "step_00000009",
    ]
    assert losses(tmp_path) == losses(uninterrupted)


def test_a_failed_save_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    t = trainer(tmp_path, steps=5)
    t.run()
    monkeypatch.setattr(checkpoints, "save_params", fail)
    with pytest.raises(CheckpointError, match="full"):
        trainer(tmp_path).run()
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == [
        "step_00000004",
        "step_00000005",
    ]


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    trainer(tmp_path, save_every=2, keep=3).run()
    kept = checkpoints.checkpoints(tmp_path / "checkpoints")
    assert [p.name[-1] for p in kept] == ["6", "8", "9"]


def test_the_moving_average_follows_the_weights(tmp_path):
    start, _ = LineTask().init(jax.random.fold_in(jax.random.key(0), 0))
    average, steps = np.asarray(start["one"]["kernel"]), []

    def look(state, log):
        nonlocal average
        t = int(state.step) - 1
        d = min(0.99, (1 + t) / (10 + t))
        average = d * average + (1 - d) * np.asarray(state.params["one"]["kernel"])
        np.testing.assert_allclose(state.average["one"]["kernel"], average, atol=1e-6)
        steps.append(t)

    trainer(tmp_path, hooks=[Hook(1, look)], steps=4).run()
    assert steps == [0, 1, 2, 3]


def rows(directory):
    """The lines of the log, without what depends on the clock."""
    return [
        {name: x for name, x in row.items() if name not in ("time", "steps_per_second")}
        for row in read_metrics(directory)
    ]


def test_a_resumed_log_is_that_of_an_uninterrupted_run(tmp_path):
    trainer(tmp_path / "whole", log_every=4).run()
    assert [row["step"] for row in rows(tmp_path / "whole")] == [4, 8, 9]
    parts, each = tmp_path / "parts", tmp_path / "each"
    trainer(each).run()
    single = losses(each)
    trainer(parts, log_every=4, steps=2).run()
    assert [row["step"] for row in rows(parts)] == [2]
    # The line of a session that ended at step 6 is the mean of its last steps.
    trainer(parts, log_every=4, steps=6).run()
    assert [row["step"] for row in rows(parts)] == [4, 6]
    assert losses(parts)[6] == pytest.approx((single[5] + single[6]) / 2)
    trainer(parts, log_every=4).run()
    assert rows(parts) == rows(tmp_path / "whole")
    # Nothing is left to do, and nothing changes.
    trainer(parts, log_every=4).run()
    assert rows(parts) == rows(tmp_path / "whole")


def test_the_steps_before_a_fault_are_in_the_log(tmp_path):
    data = LineBatches(poisoned=6)
    with pytest.raises(TrainingError, match="step 7"):
        trainer(tmp_path, data, LineTask(poison=data.poison), log_every=4).run()
    assert list(losses(tmp_path)) == [4, 6]
    trainer(tmp_path, log_every=4).run()
    trainer(tmp_path / "whole", log_every=4).run()
    assert rows(tmp_path) == rows(tmp_path / "whole")


def test_a_run_that_goes_on_with_other_losses_begins_a_new_window(tmp_path):
    class More(LineTask):
        def gradients(self, params, extras, batch, key):
            grads, extras, metrics = super().gradients(params, extras, batch, key)
            return grads, extras, metrics | {"three": 3.0 + 0 * metrics["loss"]}

    trainer(tmp_path, log_every=4, steps=2).run()
    trainer(tmp_path, task=More(), log_every=4, steps=4).run()
    assert rows(tmp_path)[-1]["three"] == 3


def test_a_margin_that_every_loss_exceeds_is_refused():
    with pytest.raises(ConfigError, match="divergence_margin must be above 0"):
        dataclasses.replace(CONFIG, divergence_margin=0.0)


def test_optimizers_must_fit_the_groups(tmp_path):
    with pytest.raises(ConfigError, match="one for each group"):
        trainer(tmp_path, optimizers={"one": RULE})


def test_rows_that_do_not_divide_are_one_clear_error(tmp_path):
    with pytest.raises(TrainingError, match="multiple of 3 rows"):
        trainer(tmp_path, accumulate=3).run()


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    trainer(tmp_path, steps=1).run()
    with pytest.raises(CheckpointError, match="of another shape"):
        trainer(tmp_path, LineBatches(width=4), LineTask(width=4)).run()


def test_metrics_hold_norms_rates_and_speed(uninterrupted):
    row = read_metrics(uninterrupted)[1]
    assert row["step"] == 2
    assert row["learning_rate/one"] == pytest.approx(0.02 * 2 / 3)
    assert row["learning_rate/two"] == pytest.approx(0.01 * 2 / 3)
    assert row["grad_norm/one"] > 0 and row["steps_per_second"] > 0
    assert all(math.isfinite(v) for v in row.values())


def test_run_json_is_readable(uninterrupted):
    newest = checkpoints.checkpoints(uninterrupted / "checkpoints")[-1]
    run = json.loads((newest / "run.json").read_text())
    assert run["step"] == 9 and run["data"] == {"at": 9}


def test_several_steps_in_a_call_give_what_single_steps_give(tmp_path, uninterrupted):
    trainer(tmp_path, steps_per_call=4).run()  # two whole calls and the last step alone
    single, run = final_state(uninterrupted)
    several, run_of_several = final_state(tmp_path)
    assert run_of_several == run
    for name, x in single.items():
        np.testing.assert_allclose(several[name], x, rtol=1e-5, atol=1e-6, err_msg=name)
    found, wanted = losses(tmp_path), losses(uninterrupted)
    assert list(found) == list(wanted)
    np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-5)


def test_calls_of_several_steps_resume_bit_by_bit(tmp_path):
    trainer(tmp_path / "whole", steps_per_call=2, steps=8).run()
    trainer(tmp_path / "parts", steps_per_call=2, steps=4).run()
    trainer(tmp_path / "parts", steps_per_call=2, steps=8).run()
    whole, parts = (final_state(tmp_path / n, steps_per_call=2) for n in ("whole", "parts"))
    assert whole[1] == parts[1]
    for name, x in whole[0].items():
        np.testing.assert_array_equal(parts[0][name], x, err_msg=name)


def test_a_fault_within_a_call_names_its_step(tmp_path):
    t = trainer(
        tmp_path, LineBatches(poisoned=6), LineTask(poison=7.5), steps_per_call=4, save_every=4
    )
    with pytest.raises(TrainingError, match="step 7 .*last good checkpoint is .*000004"):
        t.run()


def test_hooks_come_after_the_call_of_their_step(tmp_path):
    seen = []
    hook = Hook(3, lambda state, log: seen.append(int(state.step)))
    trainer(tmp_path, hooks=[hook], steps_per_call=4, steps=12).run()
    assert seen == [4, 8, 12]


def test_batches_of_a_call_must_have_one_shape(tmp_path):
    class Growing(LineBatches):
        def __next__(self):
            self.rows = 8 * (self.at + 1)
            return super().__next__()

    with pytest.raises(TrainingError, match="same shapes"):
        trainer(tmp_path, Growing(), steps_per_call=2, save_every=4).run()


def test_checkpoints_come_after_the_call_of_their_step(tmp_path):
    trainer(tmp_path, steps=1).run()
    t = trainer(tmp_path, steps_per_call=2, steps=9, save_every=4, keep=9)
    t.run()
    steps = [int(path.name.split("_")[1]) for path in checkpoints.checkpoints(t.checkpoints)]
    assert steps == [1, 5, 9]


class Counting(LineTask):
    """Counts microbatches in its extras, two a step."""

    accumulate = 2

    def gradients(self, params, extras, batch, key):
        grads, extras, metrics = super().gradients(params, extras, batch, key)
        return grads, extras | {"seen": extras["seen"] - batch["x"].shape[0] + 1}, metrics

    def at_step(self, extras, step):
        return extras | {"seen": jnp.asarray(step * self.accumulate, jnp.int32)}


def test_a_task_that_counts_microbatches_agrees_with_the_trainer(tmp_path):
    with pytest.raises(ConfigError, match="counts 2 microbatches a step, and the trainer does 1"):
        trainer(tmp_path, task=Counting())
    run = trainer(tmp_path / "a", task=Counting(), accumulate=2, steps=5)
    run.run()
    assert run.newest().extras["seen"] == 10
    # Another run begins with its weights, and its own count.
    weights = run.save_weights(tmp_path / "weights")
    config = dataclasses.replace(CONFIG, accumulate=2, steps=3)
    other = Trainer(Counting(), LineBatches(), config, tmp_path / "b", start=weights)
    assert other._resume(None)[0].extras["seen"] == 0
    other.run()
    assert other.newest().extras["seen"] == 6
    # So does a session with another number of microbatches.
    one = Counting()
    one.accumulate = 1
    assert trainer(tmp_path / "a", task=one, steps=7).run().step == 7
    assert run.newest().extras["seen"] == 7
