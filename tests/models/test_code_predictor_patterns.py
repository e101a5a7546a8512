"""Patterns of the code predictor: what their codes depend on, and equal results of all paths."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.presets import tiny, tts_12hz
from qtts_jax.functional import abstract, bind, initialize
from qtts_jax.generation.residual_codes import residual_codes, residual_noise
from qtts_jax.generation.sampling import HeadSampling, SamplerParams, sample, sample_codebooks
from qtts_jax.layers import dispatch
from qtts_jax.layers.quantized_weights import quantize_params
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.training.talker.teacher_forcing import predictor_logits
from tests.support.helpers import assert_close

BOOKS = 5


@pytest.fixture(scope="module")
def parallel():
    """A talker wider than its predictor, whose weights are large enough for codes to differ."""
    config = tiny(tts_12hz("1b7", "custom_voice"))
    predictor = replace(config.talker.code_predictor, codebooks=BOOKS, pattern="parallel")
    config = replace(
        config, talker=replace(config.talker, codebooks=BOOKS, code_predictor=predictor)
    )
    params = jax.tree.map(lambda x: x if x.ndim < 2 else 5 * x, initialize(TTSModel, config, 0))
    return config, params


def inputs(config, rows):
    return jax.random.normal(jax.random.key(2), (2, rows, config.talker.transformer.width))


def sampler(rows):
    full = np.full(rows, 0.8, np.float32), np.full(rows, 20, np.int32), np.ones(rows, np.float32)
    return SamplerParams(np.arange(rows) % 2 == 0, *full), HeadSampling(sample=True, partial=True)


def generate(config, params, rows):
    keys = jax.random.split(jax.random.key(3), rows)
    with jax.default_matmul_precision("highest"):
        predictor = bind(abstract(TTSModel, config)[0], params).code_predictor
        return jax.jit(
            lambda: residual_codes(predictor, *inputs(config, rows), keys, *sampler(rows))
        )()


@pytest.mark.parametrize("rows", [1, 3])
def test_kernels_give_the_codes_of_the_plain_path(parallel, monkeypatch, rows):
    monkeypatch.setattr(dispatch, "override", "plain")
    want, total = generate(*parallel, rows)
    assert len(np.unique(want)) > BOOKS - 2
    monkeypatch.setattr(dispatch, "override", "interpret")
    got, other_total = generate(*parallel, rows)
    np.testing.assert_array_equal(got, want)
    assert_close(other_total, total)


def test_logits_of_all_paths_agree_and_depend_on_no_residual_code(parallel):
    config, params = parallel
    predictor = bind(abstract(TTSModel, config)[0], params).code_predictor
    codes = jax.random.randint(jax.random.key(4), (3, BOOKS - 1), 0, 2048)
    with jax.default_matmul_precision("highest"):
        want = np.asarray(jax.jit(predictor.at_once)(*inputs(config, 3)))
        assert want.shape == (3, BOOKS - 1, 2048) and want.dtype == jnp.float32
        paths = jax.jit(
            lambda *given: (
                predictor.teacher_forced(*given),
                predictor_logits(predictor, *given),
            )
        )
        for given in (codes, codes[::-1]):
            for got in paths(*inputs(config, 3), given):
                assert_close(got, want)
        # The first residual codebook has the same inputs in both patterns.
        sequential = replace(config.talker.code_predictor, pattern="sequential")
        sequential = replace(config, talker=replace(config.talker, code_predictor=sequential))
        other = bind(abstract(TTSModel, sequential)[0], params).code_predictor
        forced = np.asarray(jax.jit(other.teacher_forced)(*inputs(config, 3), codes))
    assert_close(forced[:, 0], want[:, 0])
    assert np.abs(forced[:, 1:] - want[:, 1:]).max() > 0.1


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantised_heads_are_those_of_each_codebook(parallel, kind):
    config, params = parallel
    small = quantize_params(TTSModel, config, params, kind)
    predictor = bind(abstract(TTSModel, config)[0], small).code_predictor

    @jax.jit
    def one_by_one(hidden, first):
        y = predictor.begin(hidden, first, 2)[0]
        return jnp.stack([predictor._logits(y, i) for i in range(BOOKS - 1)], axis=1)

    assert_close(jax.jit(predictor.at_once)(*inputs(config, 2)), one_by_one(*inputs(config, 2)))


def test_codebooks_sampled_at_once_are_those_sampled_one_by_one(parallel):
    config, params = parallel
    predictor = bind(abstract(TTSModel, config)[0], params).code_predictor
    noise = np.asarray(residual_noise(predictor, jax.random.split(jax.random.key(3), 4)))
    logits = 3 * np.asarray(jax.random.normal(jax.random.key(5), (4, BOOKS - 1, 2048)))
    settings, heads = sampler(4)
    got = np.asarray(
        jax.jit(lambda *given: sample_codebooks(*given, settings, heads))(logits, noise)
    )
    one = jax.jit(lambda *given: sample(*given, settings, heads))
    for i in range(BOOKS - 1):
        np.testing.assert_array_equal(got[:, i], one(logits[:, i], noise[i]))
