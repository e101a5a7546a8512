"""Master weights, gradients and losses are float32 whatever the dtype of the computation."""

import jax
import jax.numpy as jnp
import pytest

from qtts_jax.training.tokenizer.config import DiscriminatorConfig, TokenizerTraining
from qtts_jax.training.tokenizer_25hz.config import EncoderTraining
from qtts_jax.training.tokenizer_25hz.encoder_task import EncoderTask
from qtts_jax.training.tokenizer_25hz.flow_task import FlowTask
from qtts_jax.training.tokenizer_25hz.vocoder_task import VocoderTask
from tests.support.small_tokenizer_25hz import (
    HEADS,
    toy_config,
    toy_flow_batch,
    toy_transcripts,
    toy_vocoder_batch,
)

VOCODER = TokenizerTraining(
    stage="decoder",
    mel_scales=((32, 5),),
    discriminator=DiscriminatorConfig((3,), (4, 6), (32,), 3),
)
TASKS = {
    "encoder": (
        lambda: EncoderTask(toy_config(), HEADS, EncoderTraining(mel=1.0), dtype=jnp.bfloat16),
        toy_transcripts,
    ),
    "flow": (lambda: FlowTask(toy_config(), dtype=jnp.bfloat16), toy_flow_batch),
    "vocoder": (
        lambda: VocoderTask(toy_config(), VOCODER, dtype=jnp.bfloat16),
        toy_vocoder_batch,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_16_bit_computation_has_float32_gradients(name):
    make, batch = TASKS[name]
    task, key = make(), jax.random.key(0)
    params, extras = jax.eval_shape(task.init, key)
    grads, after, metrics = jax.eval_shape(task.gradients, params, extras, batch(), key)
    for given, found in ((params, grads), (extras, after)):
        assert jax.tree.structure(given) == jax.tree.structure(found)
        for before, now in zip(jax.tree.leaves(given), jax.tree.leaves(found), strict=True):
            assert (before.shape, before.dtype) == (now.shape, now.dtype)
    assert all(x.dtype == jnp.float32 and x.shape == () for x in metrics.values())
