"""Adapters: nothing at first, a low-rank change later, and a merge that generation can use."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.errors import ConfigError
from qtts_jax.functional import abstract, initialize
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.training.talker.lora import LoraConfig, adapted, init_adapters, merge
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig
from tests.support.small_talker import batch_of, small

MODEL = small(layers=1)
LORA = LoraConfig(rank=2, alpha=6.0)


@pytest.fixture(scope="module")
def base():
    return initialize(TTSModel, MODEL, seed=0)


def test_attention_and_feed_forward_matrices_are_adapted():
    found = adapted(TTSModel, MODEL, LORA)
    names = {name.replace("/0/", "/N/") for name in found}
    kinds = ("attention/qkv", "attention/out", "ffn/gate_up", "ffn/down")
    assert names == {
        f"{part}/transformer/layers/N/{kind}/kernel"
        for part in ("talker", "code_predictor")
        for kind in kinds
    }
    assert found["talker/transformer/layers/0/attention/out/kernel"] == 3
    assert found["talker/transformer/layers/0/attention/qkv/kernel"] == 1


def test_new_adapters_change_nothing(base):
    merged = merge(base, init_adapters(TTSModel, MODEL, LORA, jax.random.key(0)), LORA)
    for name, x in flatten_params(base).items():
        np.testing.assert_array_equal(flatten_params(merged)[name], x)


def test_a_merge_adds_the_scaled_product(base):
    adapters = init_adapters(TTSModel, MODEL, LORA, jax.random.key(0))
    adapters = jax.tree.map(lambda x: x + 0.1, adapters)
    merged = flatten_params(merge(base, adapters, LORA))
    for name, x in flatten_params(base).items():
        change = np.asarray(merged[name]) - np.asarray(x)
        if name not in adapters:
            assert not change.any()
            continue
        a, b = (np.asarray(adapters[name][k]) for k in "ab")
        wanted = 3.0 * b.reshape(-1, 2) @ a.reshape(2, -1)
        np.testing.assert_allclose(change, wanted.reshape(x.shape), atol=1e-6)


def test_only_adapters_are_trained(base):
    config = TalkerTaskConfig(MODEL, dtype="float32", train=(), lora=LORA)
    task = TalkerTask(config, base)
    groups, extras = task.init(jax.random.key(0))
    assert set(groups) == {"lora"} and set(extras["frozen"]) == {"talker", "code_predictor"}
    shapes = jax.tree.map(jnp.ndim, groups)
    axes = jax.tree.map(len, task.axes(), is_leaf=lambda x: isinstance(x, tuple))
    assert shapes == axes
    grads, after, metrics = jax.jit(task.gradients)(groups, extras, batch_of(2), jax.random.key(0))
    # With b at zero, the first step moves b alone.
    moved = {name[-1] for name, g in flatten_params(grads).items() if jnp.any(g)}
    assert moved == {"b"} and np.isfinite(metrics["loss"])
    size = sum(x.size for x in jax.tree.leaves(groups))
    assert size < 0.15 * sum(x.size for x in jax.tree.leaves(abstract(TTSModel, MODEL)[1]))
    # What is exported has the structure of the model.
    whole = jax.eval_shape(task.model_params, groups, after)
    assert jax.tree.structure(whole) == jax.tree.structure(abstract(TTSModel, MODEL)[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": "vocoder/.*"}, "name no matrix"),
        ({"targets": "("}, "is no pattern"),
        ({"rank": 0}, "at least 1"),
    ],
)
def test_bad_configurations_are_one_clear_error(changes, message):
    with pytest.raises(ConfigError, match=message):
        adapted(TTSModel, MODEL, dataclasses.replace(LORA, **changes))


def test_adapters_of_another_model_are_refused(base):
    with pytest.raises(ConfigError, match="has no talker/x"):
        merge(base, {"talker/x": {"a": jnp.zeros(1), "b": jnp.zeros(1)}}, LORA)
