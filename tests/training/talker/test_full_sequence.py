"""A stack over whole sequences with cuDNN's attention, which another backend stands in for."""

import functools

import jax
import jax.numpy as jnp
import pytest

from qtts_jax.configs.presets import tiny, tts_12hz
from qtts_jax.functional import abstract, bind, initialize
from qtts_jax.modules.transformer import Transformer
from qtts_jax.training.talker.full_sequence import run_stack
from tests.support.helpers import assert_close


@pytest.mark.parametrize("length", [7, 8])
def test_cudnn_gets_even_lengths_and_the_result_is_the_plain_one(monkeypatch, length):
    config = tiny(tts_12hz("0b6", "voice_design")).talker.code_predictor.transformer
    module = bind(abstract(Transformer, config)[0], initialize(Transformer, config, seed=0))
    plain_call, lengths = jax.nn.dot_product_attention, []

    @functools.wraps(plain_call)
    def stand_in(q, k, v, *, is_causal, implementation):
        assert implementation == "cudnn"
        lengths.append(q.shape[1])
        return plain_call(q, k, v, is_causal=is_causal)

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    x = jax.random.normal(jax.random.key(1), (2, length, config.width), jnp.float32)
    with jax.default_matmul_precision("highest"):
        found = run_stack(module, x, attention="cudnn")
        assert_close(found, run_stack(module, x, attention="plain"), relative=1e-5)
    assert lengths == [8] * config.layers
