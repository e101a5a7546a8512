"""Tasks of preference and policy optimization with a small talker: gradients, optima, no reward."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.data.talker_examples import Bucket, collate, layout_example
from qtts_jax.errors import ConfigError
from qtts_jax.functional import initialize
from qtts_jax.generation.prompt import SpeakerCondition, build_prompt
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.preference.dpo import PreferenceTask, PreferenceTaskConfig
from qtts_jax.training.preference.objectives import Clip
from qtts_jax.training.preference.pairs import Pair, PairBatches, Take
from qtts_jax.training.preference.policy_task import PolicyTask, PolicyTaskConfig
from qtts_jax.training.preference.task import PolicyConfig
from qtts_jax.training.talker.lora import LoraConfig
from qtts_jax.training.trainer import Trainer
from qtts_jax.training.trainer_config import TrainerConfig
from tests.support.small_talker import BOOKS, ENTRIES, ROLE, small

MODEL = small(layers=1)
SAMPLING = SamplingParams(top_k=0, temperature=0.8, repetition_penalty=1.0, subtalker_top_k=0)
POLICY = PolicyConfig(MODEL, SAMPLING, dtype="float32")
PROMPT = build_prompt(MODEL, ROLE, [11, 12, 13], voice=SpeakerCondition(speaker="ryan"))
STEADY = OptimizerConfig(1e-2, weight_decay=0.0, b2=0.99)


def takes(count):
    rng = np.random.default_rng(3)
    return [Take(rng.integers(0, ENTRIES, (3 + i % 2, BOOKS)), i % 3 > 0) for i in range(count)]


def speech_batch(count=4):
    found = [layout_example(MODEL, PROMPT, t.codes, ends=t.ends) for t in takes(count)]
    batch = collate(MODEL, found, Bucket(24, 6))
    advantage = np.linspace(-1, 1, count, dtype=np.float32)
    return batch | {
        "advantage": advantage,
        "weight": np.ones(count, np.float32),
        "reward": advantage + 1,
    }


def settings(**changes):
    base = TrainerConfig(
        10, {"talker": STEADY}, log_every=1, save_every=1000, tensorboard=False, progress=False
    )
    return dataclasses.replace(base, **changes)


class Repeated:
    """The same batch again and again."""

    def __init__(self, batch):
        self.batch = batch

    def __next__(self):
        return self.batch

    def state(self):
        return {}

    def restore(self, state):
        pass


@pytest.fixture(scope="module")
def batch():
    return speech_batch()


@pytest.fixture(scope="module")
def initial():
    return initialize(TTSModel, MODEL, 0)


@pytest.mark.parametrize("objective", ["gspo", "grpo"])
def test_the_gradient_of_the_task_is_the_slope_of_its_objective(batch, initial, objective):
    """Along the gradient, with speech drawn by other parameters, so that ratios are not 1."""
    config = PolicyTaskConfig(POLICY, objective, Clip(0.5, 0.5), kl_weight=0.05)
    task = PolicyTask(config, initial)
    params, extras = task.init(jax.random.key(0))
    old, _ = jax.jit(task.log_probs)(params, extras, batch)
    batch = batch | {"drawn_log_probs": old}

    @jax.jit
    def disturbed(params):
        return jax.tree.map(
            lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape) * x.std(), params
        )

    @jax.jit
    def moved(params, grads, distance):
        return jax.tree.map(lambda x, g: x + distance * g, params, grads)

    noise = disturbed(params)
    with jax.default_matmul_precision("highest"):
        program = jax.jit(lambda p: task.gradients(p, extras, batch, jax.random.key(0)))
        grads, _, metrics = program(noise)
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(grads)))
        step = 2e-4

        def loss_at(distance):
            return program(moved(noise, grads, distance / norm))[2]["loss"]

        slope = (loss_at(step) - loss_at(-step)) / (2 * step)
    assert abs(metrics["objective"]) > 1e-4 and metrics["kl"] > 1e-4
    np.testing.assert_allclose(slope, norm, rtol=2e-2)


def test_the_first_gradient_is_that_of_the_advantage_weighted_log_probability(batch, initial):
    task = PolicyTask(PolicyTaskConfig(POLICY), initial)
    params, extras = task.init(jax.random.key(0))
    grads, _, metrics = jax.jit(task.gradients)(params, extras, batch, jax.random.key(0))

    def plain(params):
        found, present = task.log_probs(params, extras, batch)
        return -jnp.mean(batch["advantage"] * jnp.sum(found, axis=1) / jnp.sum(present, axis=1))

    wanted = flatten_params(jax.jit(jax.grad(plain))(params))
    largest = max(float(np.abs(x).max()) for x in wanted.values())
    for name, x in flatten_params(grads).items():
        np.testing.assert_allclose(x, wanted[name], atol=1e-4 * largest, err_msg=name)
    assert metrics["kl"] == 0 and metrics["clipped"] == 0


def test_speech_without_differences_in_reward_leaves_the_policy_unchanged(batch, initial, tmp_path):
    flat = batch | {"advantage": np.zeros(4, np.float32), "weight": np.zeros(4, np.float32)}
    task = PolicyTask(PolicyTaskConfig(POLICY, kl_weight=0.1), initial)
    trainer = Trainer(task, Repeated(flat), settings(steps=3), tmp_path)
    trainer.run()
    after = flatten_params(trainer.newest().params["talker"])
    for name, x in flatten_params(initial["talker"]).items():
        np.testing.assert_array_equal(after[name], x, err_msg=name)


@pytest.mark.slow
def test_dpo_moves_the_margin_to_the_odds_of_the_preferences(initial, tmp_path):
    """One prompt, two takes, of which one wins three times of four: the margin is ln 3 / beta."""
    one, two = takes(2)
    pairs = [Pair(PROMPT, one, two)] * 3 + [Pair(PROMPT, two, one)]
    batches = PairBatches(MODEL, pairs, 4, threads=0)
    task = PreferenceTask(PreferenceTaskConfig(POLICY, beta=0.5), initial)
    rule = dataclasses.replace(STEADY, decay="cosine", total_steps=120, learning_rate=3e-3)
    trainer = Trainer(task, batches, settings(steps=120, optimizers={"talker": rule}), tmp_path)
    trainer.run()
    state = trainer.newest()
    _, metrics = jax.jit(task.loss)(
        state.params, state.extras, next(PairBatches(MODEL, pairs[:1], 1)), jax.random.key(0)
    )
    np.testing.assert_allclose(metrics["margin"], np.log(3), atol=0.02)
    assert metrics["accuracy"] == 1


def test_the_sft_term_is_the_mean_cross_entropy_of_chosen_speech(initial):
    one, two = takes(2)
    batch = next(PairBatches(MODEL, [Pair(PROMPT, one, two)], 1, threads=0))
    losses = []
    for weight in (0.0, 0.7):
        task = PreferenceTask(PreferenceTaskConfig(POLICY, sft_weight=weight), initial)
        params, extras = task.init(jax.random.key(0))
        metrics = jax.jit(task.loss)(params, extras, batch, jax.random.key(0))[1]
        losses.append({name: float(x) for name, x in metrics.items()})
    assert losses[0]["loss"] == pytest.approx(np.log(2), rel=1e-5)
    assert losses[1]["loss"] - losses[0]["loss"] == pytest.approx(0.7 * losses[0]["sft"], rel=1e-4)
    found, present = jax.jit(task.log_probs)(params, extras, {k: x[:, 0] for k, x in batch.items()})
    assert losses[0]["sft"] == pytest.approx(-float(found.sum() / present.sum()), rel=1e-4)


def test_adapters_have_the_frozen_weights_as_their_reference(batch, initial):
    policy = dataclasses.replace(POLICY, books="all", train=(), lora=LoraConfig(2, 4.0, ".*kernel"))
    task = PolicyTask(PolicyTaskConfig(policy, kl_weight=0.1), initial)
    params, extras = task.init(jax.random.key(0))
    assert list(params) == ["lora"] and extras["reference"] == {}
    grads, _, metrics = jax.jit(task.gradients)(params, extras, batch, jax.random.key(0))
    assert metrics["kl"] == 0
    moved = [name for name, g in flatten_params(grads).items() if jnp.any(g != 0)]
    assert any("code_predictor" in name for name in moved)
    assert any("talker/transformer" in name for name in moved)


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="beta must be above 0"):
        PreferenceTaskConfig(POLICY, beta=0)
    with pytest.raises(ConfigError, match="sft_weight must be 0 or more"):
        PreferenceTaskConfig(POLICY, sft_weight=-1)
    with pytest.raises(ConfigError, match="gspo or grpo"):
        PolicyTaskConfig(POLICY, "ppo")
    with pytest.raises(ConfigError, match="clipped to 1 - low"):
        PolicyTaskConfig(POLICY, clip=Clip(0.0, 0.1))
    with pytest.raises(ConfigError, match="kl_weight must be 0 or more"):
        PolicyTaskConfig(POLICY, kl_weight=-0.1)
