"""Flow matching: the slopes of training are those that inference integrates; the loss falls."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qtts_jax.errors import ConfigError
from qtts_jax.functional import abstract, bind, initialize
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.models.tokenizer_25hz.flow import Flow
from qtts_jax.models.tokenizer_25hz.schedule import Schedule, schedule
from qtts_jax.modules.dit import time_features
from qtts_jax.training.tokenizer_25hz.config import FlowTraining
from qtts_jax.training.tokenizer_25hz.flow_matching import row_slopes, row_time_features
from qtts_jax.training.tokenizer_25hz.flow_task import FlowTask
from tests.support.sessions import assert_sessions_end_in_the_same_state
from tests.support.small_tokenizer_25hz import toy_config, toy_flow_batch

CONFIG = toy_config()
DIT = CONFIG.decoder.dit
GRAPH = abstract(Flow, DIT)[0]
TIMES = np.asarray([0.15, 0.7], np.float32)
RATE, STEPS = 5e-3, 200


def make(training=FlowTraining(), **options):  # noqa: B008 (frozen)
    return FlowTask(CONFIG, training, dtype=jnp.float32, precision="highest", **options)


@pytest.fixture(scope="module")
def batch():
    return toy_flow_batch()


@pytest.fixture(scope="module")
def random_flow():
    return initialize(Flow, DIT, seed=3)


@pytest.fixture(scope="module")
def solve():
    """(params, batch, start of the frames, schedule, guidance) -> frames by inference."""

    @jax.jit
    def run(params, batch, x, schedule, guidance):
        flow = bind(GRAPH, params)
        voice = flow.condition(batch["xvector"], batch["reference"], batch["reference_frames"])
        return flow(batch["codes"], x, voice, schedule, guidance, batch["lengths"])

    with jax.default_matmul_precision("highest"):
        yield run


@pytest.fixture(scope="module")
def step():
    """One program for the short tests: gradients, and an update by Adam."""
    task, optimizer = make(), optax.adam(RATE)

    @jax.jit
    def run(params, moments, batch, key):
        grads, _, metrics = task.gradients(params, {}, batch, key)
        updates, moments = optimizer.update(grads, moments)
        return optax.apply_updates(params, updates), moments, grads, metrics

    return run


@pytest.fixture(scope="module")
def learned(step, batch):
    """Parameters, and loss and share of conditioned rows of every step, for one batch."""
    params = jax.jit(make().init)(jax.random.key(0))[0]
    moments, losses, shares = optax.adam(RATE).init(params), [], []
    for i in range(STEPS):
        params, moments, _, metrics = step(params, moments, batch, jax.random.key(i))
        losses.append(float(metrics["loss"]))
        shares.append(float(metrics["conditioned"]))
    return params, losses, shares


def real_frames(batch):
    return np.arange(batch["mel"].shape[1]) < (DIT.repeats * batch["lengths"])[:, None]


@pytest.mark.parametrize("conditioned", [True, False])
def test_slopes_of_training_are_those_of_inference(random_flow, solve, batch, conditioned):
    """At the time of each row, with and without conditions, and with the mask of whole rows."""
    x = np.random.default_rng(1).standard_normal(batch["mel"].shape).astype(np.float32)

    @jax.jit
    def slopes(params):
        flow = bind(GRAPH, params)
        voice = flow.condition(batch["xvector"], batch["reference"], batch["reference_frames"])
        rows = jnp.full((2,), conditioned)
        return row_slopes(flow, x, TIMES, batch["codes"], voice, rows, batch["lengths"])

    with jax.default_matmul_precision("highest"):
        found = np.asarray(slopes(random_flow))
    for row, real in enumerate(real_frames(batch)):
        # One step of size 1 at this time; guidance -1 leaves the slope without conditions.
        one = Schedule(time_features(TIMES[row : row + 1]), np.ones(1, np.float32))
        ahead = solve(random_flow, batch, x, one, 0.0 if conditioned else -1.0)
        wanted = (np.asarray(ahead) - x)[row, real]
        np.testing.assert_allclose(found[row, real], wanted, atol=2e-4)
        assert np.abs(wanted).max() > 0.1


def test_times_have_the_features_of_the_schedule():
    found = row_time_features(jnp.asarray(TIMES))
    np.testing.assert_allclose(found, time_features(TIMES), atol=1e-4)


def test_the_loss_falls_and_inference_gives_the_mel(learned, solve, batch):
    params, losses, _ = learned
    assert np.mean(losses[-20:]) < 0.4 * np.mean(losses[:5])
    noise = np.random.default_rng(2).standard_normal(batch["mel"].shape).astype(np.float32)
    real = real_frames(batch)

    def error(params):
        mel = np.asarray(solve(params, batch, noise, schedule(10), 0.0))
        return np.abs(mel - batch["mel"])[real].mean()

    begun = jax.jit(make().init)(jax.random.key(0))[0]
    assert error(params["flow"]) < 0.4 * error(begun["flow"])


def test_every_parameter_has_a_gradient(random_flow, step, batch):
    params = {"flow": random_flow}
    grads = flatten_params(step(params, optax.adam(RATE).init(params), batch, jax.random.key(1))[2])
    # Code 0 is the empty code, so only codes that the batch lacks have none.
    assert not {name for name, g in grads.items() if not np.any(np.asarray(g))}
    table = np.asarray(grads["flow/code_embedding/table"])
    inside = np.arange(batch["codes"].shape[1]) < batch["lengths"][:, None]
    unused = sorted(set(range(1, len(table))) - set(batch["codes"][inside]))
    assert unused and not np.any(table[unused])


def test_padding_of_codes_and_mel_changes_nothing(random_flow, step, batch):
    params = {"flow": random_flow}
    moments = optax.adam(RATE).init(params)
    other = {name: x.copy() for name, x in batch.items()}
    other["codes"][1, 5:], other["mel"][1, 20:] = 3, 100.0
    other["reference"][0, batch["reference_frames"][0] :] = 100.0
    first, second = (step(params, moments, b, jax.random.key(1))[2:] for b in (batch, other))
    assert float(first[1]["loss"]) == pytest.approx(float(second[1]["loss"]), rel=1e-6)
    for name, value in flatten_params(first[0]).items():
        np.testing.assert_allclose(flatten_params(second[0])[name], value, atol=1e-5)


def test_conditions_are_dropped_for_a_fifth_of_the_rows(learned):
    shares = learned[2]
    assert set(shares) == {0.0, 0.5, 1.0}
    assert np.mean(shares) == pytest.approx(0.8, abs=0.06)


@pytest.mark.slow
def test_run_in_sessions_ends_in_the_same_state(tmp_path):
    assert_sessions_end_in_the_same_state(
        make, toy_flow_batch, ("flow",), tmp_path, average_decay=0.9
    )


def test_bad_input_is_one_sentence(batch):
    task = make()
    params = jax.eval_shape(task.init, jax.random.key(0))[0]
    few = {name: x for name, x in batch.items() if name != "reference"}
    with pytest.raises(ConfigError, match="needs reference in every batch"):
        task.gradients(params, {}, few, jax.random.key(0))
    short = batch | {"mel": batch["mel"][:, 1:]}
    with pytest.raises(ConfigError, match=r"mel must be \[2, 32, 20\] for 8 codes a row"):
        task.gradients(params, {}, short, jax.random.key(0))
    with pytest.raises(ConfigError, match="drop_conditions must be 0 or more and below 1"):
        FlowTraining(drop_conditions=1.0)
