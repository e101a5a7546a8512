"""Training of the vocoder: the mel loss falls against discriminators; each side its gradients."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qtts_jax.errors import ConfigError
from qtts_jax.functional import abstract
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.models.tokenizer_25hz.vocoder import Vocoder
from qtts_jax.training.tokenizer.config import (
    DiscriminatorConfig,
    LossWeights,
    TokenizerTraining,
)
from qtts_jax.training.tokenizer_25hz.vocoder_task import VocoderTask, unit_gain
from tests.support.sessions import assert_sessions_end_in_the_same_state
from tests.support.small_tokenizer_25hz import toy_config, toy_vocoder_batch

CONFIG = toy_config()
FULL = TokenizerTraining(
    stage="decoder",
    weights=LossWeights(mel=3.0),
    mel_scales=((32, 5), (128, 20)),
    noise_floor=5e-3,
    discriminator=DiscriminatorConfig((3,), (4, 6), (32,), 3),
    discriminator_start=1,
    generator_start=2,
    balance=0.9,
)
RATE, STEPS = 3e-3, 120


def make(training=FULL, **options):
    return VocoderTask(CONFIG, training, dtype=jnp.float32, precision="highest", **options)


@pytest.fixture(scope="module")
def batch():
    return toy_vocoder_batch()


@pytest.fixture(scope="module")
def learned(batch):
    """Parameters, extras, first and last gradients, and the metrics of every step on one batch."""
    task, optimizer = make(), optax.adam(RATE)

    @jax.jit
    def step(params, extras, moments):
        grads, extras, metrics = task.gradients(params, extras, batch, jax.random.key(0))
        updates, moments = optimizer.update(grads, moments)
        return (optax.apply_updates(params, updates), extras, moments), grads, metrics

    begun = jax.jit(task.init)(jax.random.key(0))
    carry, found, grads = (*begun, optimizer.init(begun[0])), [], []
    for _ in range(STEPS):
        carry, g, metrics = step(*carry)
        found.append(jax.device_get(metrics))
        grads.append(g)
    kept = [flatten_params(jax.device_get(g)) for g in (grads[0], grads[1], grads[-1])]
    return carry[0], carry[1], kept, {n: np.stack([m[n] for m in found]) for n in found[0]}


@pytest.mark.slow
def test_the_mel_loss_falls(learned, batch):
    metrics = learned[3]
    assert metrics["mel"][-5:].mean() < 0.5 * metrics["mel"][0]
    assert int(learned[1]["calls"]) == STEPS
    samples = np.asarray(make().synthesize(learned[0]["vocoder"], batch["mel"]))
    assert samples.shape == batch["audio"].shape and np.abs(samples).max() <= 1


@pytest.mark.slow
def test_each_side_gets_its_gradients_in_its_time(learned):
    first, second, last = learned[2]
    named = {side: [n for n in first if n.startswith(side)] for side in ("vocoder", "discrim")}
    assert all(np.any(first[n]) for n in named["vocoder"])
    assert not any(np.any(first[n]) for n in named["discrim"])  # discriminators start at step 1
    # Where both sides of the hinge are linear, they cancel in the last bias.
    assert all(np.any(second[n]) for n in named["discrim"] if not n.endswith("output/bias"))
    assert all(np.any(last[n]) for n in named["vocoder"])
    pulls = learned[3]["pull/adversarial"]
    assert not np.any(pulls[:2]) and np.all(pulls[2:] > 0)


def test_the_main_path_of_a_random_vocoder_keeps_its_level():
    """Of the usual start after six convolutions a thousandth is left; residual blocks keep it."""
    shapes = abstract(Vocoder, CONFIG.decoder.vocoder)[1]
    gains = flatten_params(unit_gain(jax.tree.map(lambda x: np.ones(x.shape), shapes)))
    scaled = {name for name, gain in gains.items() if gain.flat[0] > 1}
    assert {"input_conv/kernel", "stages/0/upsample/kernel", "output_conv/kernel"} <= scaled
    assert not any("convs" in name or not name.endswith("kernel") for name in scaled)
    assert all(np.allclose(gains[name], 3**0.5) for name in scaled)


@pytest.mark.slow
def test_run_in_sessions_ends_in_the_same_state(tmp_path):
    assert_sessions_end_in_the_same_state(
        make, toy_vocoder_batch, ("vocoder", "discriminator"), tmp_path
    )


def test_bad_input_is_one_sentence(batch):
    with pytest.raises(ConfigError, match=r"TokenizerTraining\(stage='decoder'\), not 'joint'"):
        make(replace(FULL, stage="joint"))
    task = make()
    state = jax.eval_shape(task.init, jax.random.key(0))
    with pytest.raises(ConfigError, match="needs mel and audio in every batch"):
        task.gradients(*state, {}, jax.random.key(0))
    short = batch | {"audio": batch["audio"][:, 1:]}
    with pytest.raises(ConfigError, match=r"audio must be \[2, 240\] for 12 mel frames a row"):
        task.gradients(*state, short, jax.random.key(0))
