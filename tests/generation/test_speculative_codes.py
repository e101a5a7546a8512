"""Speculation gives the codes of the plain loop, whatever its drafts are worth."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.presets import tiny, tts_12hz
from qtts_jax.errors import RequestError
from qtts_jax.functional import abstract, bind, initialize
from qtts_jax.generation.residual_codes import residual_codes, residual_noise
from qtts_jax.generation.sampling import NOT_FINITE, HeadSampling, SamplerParams
from qtts_jax.generation.speculative_codes import check_window, speculative_codes
from qtts_jax.layers import dispatch
from qtts_jax.layers.quantized_weights import quantize_params
from qtts_jax.models.code_predictor import with_projected_rows
from qtts_jax.models.tts_model import TTSModel

BOOKS, ROWS = 7, 24


@pytest.fixture(scope="module")
def random_model():
    """A talker wider than its predictor, whose weights are large enough for codes to differ."""
    config = tiny(tts_12hz("1b7", "custom_voice"))
    predictor = replace(config.talker.code_predictor, codebooks=BOOKS, vocab_size=48)
    config = replace(
        config, talker=replace(config.talker, codebooks=BOOKS, code_predictor=predictor)
    )
    params = jax.tree.map(lambda x: x if x.ndim < 2 else 3 * x, initialize(TTSModel, config, 0))
    return config, params


def sampler(rows):
    """Every other row is greedy."""
    full = np.full(rows, 0.3, np.float32), np.full(rows, 20, np.int32), np.ones(rows, np.float32)
    return SamplerParams(np.arange(rows) % 2 == 0, *full), HeadSampling(sample=True, partial=True)


def generate(config, params, window, rows=ROWS):
    """Codes and embeddings; for windows, codes and passes."""
    keys = jax.random.split(jax.random.key(3), rows)

    def run(params):
        predictor = bind(abstract(TTSModel, config)[0], params).code_predictor
        width = config.talker.transformer.width
        hidden, first = jax.random.normal(jax.random.key(2), (2, rows, width))
        if window == 1:
            return residual_codes(predictor, hidden, first, keys, *sampler(rows))
        noise = residual_noise(predictor, keys)
        return speculative_codes(predictor, hidden, first, noise, *sampler(rows), window)

    with jax.default_matmul_precision("highest"):
        return [np.asarray(x) for x in jax.jit(run)(params)]


slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize("window", [slow(2), 3, slow(BOOKS - 1)])
def test_codes_are_those_of_the_plain_loop_and_wrong_drafts_are_corrected(random_model, window):
    want, _ = generate(*random_model, 1)
    got, passes = generate(*random_model, window)
    np.testing.assert_array_equal(got, want)
    assert len(np.unique(want)) > 20
    # Some drafts are wrong and some are right, in other rows than others.
    assert passes.max() == BOOKS - 1 and passes.min() < BOOKS - 1


@pytest.mark.parametrize("window", [slow(2), 3, slow(4)])
def test_drafts_that_are_all_right_leave_the_fewest_passes(random_model, window):
    config, params = random_model
    heads = jnp.zeros_like(params["code_predictor"]["heads"])
    params = params | {"code_predictor": params["code_predictor"] | {"heads": heads}}
    got, passes = generate(config, params, window)
    np.testing.assert_array_equal(got, generate(config, params, 1)[0])
    assert (passes == 1 + -(-(BOOKS - 2) // window)).all()
    assert len(np.unique(got[::2])) > 20  # the noise alone chooses


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["projected", "int8", "int4"])
def test_weights_in_other_forms_give_the_codes_of_the_plain_loop(random_model, stored):
    config, params = random_model
    if stored == "projected":
        params = with_projected_rows(params)
    else:
        params = quantize_params(TTSModel, config, params, stored)
    want, _ = generate(config, params, 1)
    np.testing.assert_array_equal(generate(config, params, 3)[0], want)


@pytest.mark.slow
def test_one_row_beside_the_kernels(random_model, monkeypatch):
    want, _ = generate(*random_model, 1, rows=1)
    monkeypatch.setattr(dispatch, "override", "interpret")
    np.testing.assert_array_equal(generate(*random_model, 3, rows=1)[0], want)


def test_logits_that_are_not_finite_end_the_loop(random_model):
    config, params = random_model
    heads = params["code_predictor"]["heads"].at[2].set(jnp.nan)
    params = params | {"code_predictor": params["code_predictor"] | {"heads": heads}}
    got, _ = generate(config, params, 3)
    want, _ = generate(config, params, 1)
    np.testing.assert_array_equal(got, want)
    assert (got[:, 2] == NOT_FINITE).all() and (got[:, :2] >= 0).all()


@pytest.mark.slow
def test_residual_codes_return_the_sum_of_embeddings(random_model):
    config, params = random_model
    predictor = bind(abstract(TTSModel, config)[0], params).code_predictor
    hidden, first = jax.random.normal(jax.random.key(2), (2, 2, config.talker.transformer.width))
    inputs = predictor, hidden, first, jax.random.split(jax.random.key(3), 2), *sampler(2)
    with jax.default_matmul_precision("highest"):
        (codes, total), (plain_codes, plain_total) = (
            jax.jit(lambda window=window: residual_codes(*inputs, window))() for window in (2, 1)
        )
    np.testing.assert_array_equal(codes, plain_codes)
    np.testing.assert_allclose(total, plain_total, rtol=1e-5, atol=1e-6)


def test_models_without_drafts_are_named(random_model):
    predictor = random_model[0].talker.code_predictor
    check_window(None, 1)
    check_window(predictor, BOOKS - 1)
    with pytest.raises(RequestError, match=r"draft_window is 3, but this model \(25 Hz\) has no"):
        check_window(None, 3)
    for pattern in ("parallel", "delay"):
        with pytest.raises(RequestError, match=f"pattern '{pattern}' has nothing to draft"):
            check_window(replace(predictor, pattern=pattern), 2)
    with pytest.raises(
        RequestError, match=r"a frame of this model has 6 residual codes; .* 1 to 6"
    ):
        check_window(predictor, BOOKS)
