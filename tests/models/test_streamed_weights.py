"""Which models have weights packed for the persistent kernels, and what other programs see."""

import jax
import jax.numpy as jnp
import pytest

from qtts_jax.configs.presets import tiny, tts_12hz, tts_25hz
from qtts_jax.functional import abstract, bind, cast, initialize
from qtts_jax.generation.device_params import inference_params
from qtts_jax.layers import dispatch, storage_policy
from qtts_jax.layers.quantized_weights import quantize_params
from qtts_jax.layers.streamed_weights import Streamed, plain
from qtts_jax.models.tts_model import TTSModel


@pytest.fixture
def hopper(monkeypatch):
    """As on a GPU that has the kernels."""
    monkeypatch.setattr(dispatch, "persistent_kernels", lambda: True)
    monkeypatch.setattr(storage_policy, "preproject_tables", lambda: True)


def shapes(config, dtype=jnp.bfloat16):
    return jax.eval_shape(lambda x: cast(x, dtype), abstract(TTSModel, config)[1])


def heads(params):
    """The two leaves that carry streams."""
    return params["talker"]["codec_head"]["kernel"], params["code_predictor"]["heads"]


@pytest.mark.parametrize(("size", "wide"), [("0b6", 1), ("1b7", 2)])
def test_released_models_have_streams(size, wide, hopper):
    config = tts_12hz(size, "custom_voice")
    before = shapes(config)
    talker, predictor = heads(inference_params(config, before))
    assert talker.weight.shape == (config.talker.vocab_size, 1024 * wide)
    # 16 KiB chunks of a block and layer: its part of all matrices.
    assert talker.stream["layers"].shape == (28, 128, 6 * wide + 9 * wide**2, 8192)
    assert talker.stream["norms"].shape == (57, 1024 * wide)
    assert predictor.stream["layers"].shape == (5, 128, 15, 8192)
    assert predictor.stream["heads"].shape == (15, 128, 2, 8192)
    assert predictor.weight.shape == before["code_predictor"]["heads"].shape


def test_25hz_talker_has_a_stream(hopper):
    config = tts_25hz("0b6", "base")
    params = inference_params(config, shapes(config))
    assert isinstance(params["talker"]["codec_head"]["kernel"], Streamed)


@pytest.mark.parametrize("case", ["tiny", "float32", "int8", "int4"])
def test_other_models_have_none(case, hopper):
    config = tts_12hz("0b6", "base")
    config = tiny(config) if case == "tiny" else config
    params = shapes(config, jnp.float32 if case == "float32" else jnp.bfloat16)
    if case.startswith("int"):
        params = jax.eval_shape(lambda x: quantize_params(TTSModel, config, x, case), params)
    assert not any(isinstance(x, Streamed) for x in heads(inference_params(config, params)))


def test_nothing_is_packed_elsewhere():
    config = tts_12hz("0b6", "base")
    assert not any(isinstance(x, Streamed) for x in heads(inference_params(config, shapes(config))))


def test_other_programs_use_the_plain_weights():
    """A model whose heads carry a stream gives the same logits where the kernels cannot run."""
    config = tiny(tts_12hz("0b6", "base"))
    params = initialize(TTSModel, config, 0)
    talker, predictor = params["talker"], params["code_predictor"]
    streams = {"layers": jnp.zeros((1,))}
    head = {"kernel": Streamed(talker["codec_head"]["kernel"], streams)}
    carried = params | {
        "talker": talker | {"codec_head": talker["codec_head"] | head},
        "code_predictor": predictor | {"heads": Streamed(predictor["heads"], streams)},
    }
    graph = abstract(TTSModel, config)[0]
    hidden = jax.random.normal(jax.random.key(1), (1, config.talker.transformer.width))

    def outputs(params):
        model = bind(graph, params)
        codes = model.code_predictor.generate(hidden, hidden, lambda y, _: jnp.argmax(y, axis=-1))
        return model.talker.logits(hidden), codes

    same = jax.tree.map(lambda a, b: bool((a == b).all()), outputs(params), outputs(carried))
    assert jax.tree.all(same)
    assert plain(carried["code_predictor"]["heads"]) is predictor["heads"]
