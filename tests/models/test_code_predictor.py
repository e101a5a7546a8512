"""The code predictor with embeddings projected beforehand against the plain one."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax import QwenTTS
from qtts_jax.configs.presets import tiny, tts_12hz
from qtts_jax.functional import abstract, bind, initialize
from qtts_jax.layers import dispatch, storage_policy
from qtts_jax.layers.preprojected_table import Projected
from qtts_jax.layers.quantized_weights import Quantized, quantize_params
from qtts_jax.models.code_predictor import with_projected_rows
from qtts_jax.models.tts_model import TTSModel
from tests.support.helpers import assert_close


@pytest.fixture(scope="module")
def random_model():
    """A talker wider than its predictor, as in 1.7B."""
    config = tiny(tts_12hz("1b7", "custom_voice"))
    predictor = replace(config.talker.code_predictor, codebooks=5)
    config = replace(config, talker=replace(config.talker, codebooks=5, code_predictor=predictor))
    params = initialize(TTSModel, config, 0)
    noise = jax.random.normal(jax.random.key(1), params["code_predictor"]["embeddings"].shape)
    params["code_predictor"]["embeddings"] = noise
    return config, params


def generate(config, params, rows, backend, monkeypatch):
    monkeypatch.setattr(dispatch, "override", backend)
    model = bind(abstract(TTSModel, config)[0], params)
    width = config.talker.transformer.width
    hidden, first = jax.random.normal(jax.random.key(2), (2, rows, width))
    with jax.default_matmul_precision("highest"):
        return jax.jit(
            lambda: model.code_predictor.generate(hidden, first, lambda y, _: jnp.argmax(y, -1))
        )()


@pytest.mark.parametrize(
    ("rows", "backend"), [(1, "plain"), (1, "interpret"), (3, "plain"), (3, "interpret")]
)
def test_projected_rows_give_the_codes_of_the_plain_path(random_model, monkeypatch, rows, backend):
    config, params = random_model
    projected = with_projected_rows(params)
    assert isinstance(projected["code_predictor"]["embeddings"], Projected)
    want, total = generate(config, params, rows, "plain", monkeypatch)
    got, projected_total = generate(config, projected, rows, backend, monkeypatch)
    np.testing.assert_array_equal(got, want)
    assert_close(projected_total, total)
    assert len(np.unique(want)) > 3


def test_caches_lengthened_after_two_positions_are_those_of_full_length(random_model, monkeypatch):
    config, params = random_model
    predictor = bind(abstract(TTSModel, config)[0], params).code_predictor
    hidden, first = jax.random.normal(jax.random.key(2), (2, 3, config.talker.transformer.width))
    found = []
    for lengthen in (False, True):
        monkeypatch.setattr(dispatch, "caches_lengthen_after_prompt", lambda x=lengthen: x)
        with jax.default_matmul_precision("highest"):
            begun = predictor.begin(hidden, first, 6)
            generated = predictor.generate(hidden, first, lambda y, _: jnp.argmax(y, -1))
        found.append((begun, generated))
    (begun, generated), (short, same) = found
    for x, y in zip(jax.tree.leaves(short), jax.tree.leaves(begun), strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(same[0], generated[0])


@pytest.mark.parametrize("backend", ["plain", "interpret"])
def test_rows_that_share_a_position_have_the_codes_of_each_row(random_model, monkeypatch, backend):
    config, params = random_model
    monkeypatch.setattr(dispatch, "override", backend)
    predictor = bind(abstract(TTSModel, config)[0], params).code_predictor
    hidden, first = jax.random.normal(jax.random.key(2), (2, 3, config.talker.transformer.width))

    @jax.jit
    def codes(hidden, first):
        return predictor.generate(hidden, first, lambda y, _: jnp.argmax(y, -1))[0]

    with jax.default_matmul_precision("highest"):
        together = codes(hidden, first)
        each = [codes(hidden[i : i + 1], first[i : i + 1])[0] for i in range(3)]
    np.testing.assert_array_equal(together, each)
    assert predictor.begin(hidden, first, 6)[1].position.tolist() == [2]


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_rows_of_a_quantised_table_are_projected_as_they_are(random_model, kind):
    config, params = random_model
    small = quantize_params(TTSModel, config, params, kind)["code_predictor"]
    table = with_projected_rows({"code_predictor": small})["code_predictor"]["embeddings"]
    assert isinstance(table.raw, Quantized) and table.rows.dtype == jnp.float32
    model = bind(abstract(TTSModel, config)[0], params | {"code_predictor": small})
    with jax.default_matmul_precision("highest"):
        plain = model.code_predictor._inputs(small["embeddings"][1, jnp.arange(5)])
    assert_close(table[1, jnp.arange(5)].rows, plain)


def test_a_predictor_as_wide_as_its_talker_has_nothing_to_project():
    params = {"code_predictor": {"embeddings": np.ones((2, 3, 4), np.float32)}}
    assert with_projected_rows(params) is params


def test_a_checkpoint_projects_its_rows_where_the_kernels_run(converted, monkeypatch):
    """... and speaks the same codes."""
    directory = converted("voice_design")
    plain = QwenTTS.from_pretrained(directory, dtype="float32")
    monkeypatch.setattr(storage_policy, "preproject_tables", lambda: True)
    tts = QwenTTS.from_pretrained(directory, dtype="float32")
    assert isinstance(tts.params["code_predictor"]["embeddings"], Projected)
    assert tts.describe() == plain.describe()
    codes = []
    for model in (plain, tts):
        request = model.prepare_voice_design("A text.", "calm", seed=3, max_new_tokens=5)
        codes.append(model.synthesize([request])[0].codes)
    np.testing.assert_array_equal(*codes)
