"""The count of microbatches in the extras of a task."""

import jax.numpy as jnp
import pytest

from qtts_jax.errors import ConfigError
from qtts_jax.training.tokenizer.config import TokenizerTraining
from qtts_jax.training.tokenizer.task import TokenizerTask
from qtts_jax.training.tokenizer_25hz.encoder_task import EncoderTask
from qtts_jax.training.tokenizer_25hz.vocoder_task import VocoderTask
from tests.support import small_tokenizer
from tests.support.small_tokenizer_25hz import HEADS, toy_config

TASKS = {
    "tokenizer": lambda n: TokenizerTask(small_tokenizer.toy_config(), accumulate=n),
    "encoder": lambda n: EncoderTask(toy_config(), HEADS, accumulate=n),
    "vocoder": lambda n: VocoderTask(
        toy_config(), TokenizerTraining(stage="decoder"), accumulate=n
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_the_count_is_that_of_whole_steps(name):
    extras = {"calls": jnp.asarray(7, jnp.int32), "other": object()}
    after = TASKS[name](3).at_step(extras, 4)
    assert after["calls"] == 12 and after["calls"].dtype == jnp.int32
    assert after["other"] is extras["other"] and extras["calls"] == 7


@pytest.mark.parametrize("name", TASKS)
def test_a_step_has_at_least_one_microbatch(name):
    with pytest.raises(ConfigError, match="accumulate must be 1 or more, not 0"):
        TASKS[name](0)
