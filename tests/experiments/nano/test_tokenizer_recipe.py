"""The presets that this repository trains."""

import jax
import numpy as np
import pytest

from experiments.nano.tokenizer_recipe import (
    NANO_TOKENIZER_TRAINER,
    NANO_TOKENIZER_TRAINING,
    nano_tokenizer,
)
from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.functional import abstract
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.training.tokenizer.task import TokenizerTask


@pytest.mark.parametrize(("codebooks", "entries"), [(16, 2048), (22, 256)])
def test_tokenizer_is_one_of_the_released_kind_at_2200_bits_a_second(codebooks, entries):
    config = nano_tokenizer(codebooks, entries)
    assert Tokenizer12HzConfig.from_hf(config.to_hf()) == config
    frames = config.output_sample_rate / config.samples_per_frame
    assert frames == 12.5
    assert frames * codebooks * (entries - 1).bit_length() == 2200


def test_tokenizer_takes_a_third_of_the_megabytes():
    shapes = jax.tree.leaves(abstract(Tokenizer12Hz, nano_tokenizer())[1])
    assert 2 * sum(x.size for x in shapes) < 10.5e6


@pytest.mark.parametrize("stage", ["codes", "decoder", "joint"])
def test_trainer_has_an_optimizer_for_every_group(stage):
    config = nano_tokenizer()
    start = None
    if stage == "decoder":
        start = jax.tree.map(lambda x: np.zeros(x.shape), abstract(Tokenizer12Hz, config)[1])
    task = TokenizerTask(config, NANO_TOKENIZER_TRAINING[stage], start=start)
    groups = jax.eval_shape(task.init, jax.random.key(0))[0]
    assert set(groups) == set(NANO_TOKENIZER_TRAINER[stage].optimizers)
