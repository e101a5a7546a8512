"""The SEANet encoder and its parts in a stream."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qtts_jax.configs.tokenizer_12hz import Encoder12HzConfig, QuantizerConfig
from qtts_jax.configs.tts import TransformerConfig
from qtts_jax.layers import dispatch
from qtts_jax.modules.seanet import Residual, SeanetEncoder, Stage, ceil_div
from tests.support.contract import verify_streaming


def config(**changes):
    sizes = {
        "channels": 1,
        "filters": 4,
        "kernel": 7,
        "last_kernel": 3,
        "residual_kernel": 3,
        "residual_layers": 1,
        "dilation_growth": 2,
        "compress": 2,
        "ratios": (2, 3),
        "downsample": 2,
        "transformer": TransformerConfig(
            width=10,
            layers=1,
            heads=2,
            kv_heads=2,
            head_dim=4,
            ffn_width=8,
            norm_eps=1e-5,
            rope_theta=1e4,
            max_positions=100,
        ),
        "quantizer": QuantizerConfig(books=4, semantic=1, entries=8, width=4, model_width=10),
        "sample_rate": 24000,
    }
    return Encoder12HzConfig(**(sizes | changes))


def inputs(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_residual_unit_streams():
    unit = Residual(4, 2, 3, 4, rngs=nnx.Rngs(0))
    verify_streaming(unit, inputs(2, 12, 4), receptive_field=unit.conv1.memory + 1)


def test_stage_streams():
    stage = Stage(config(residual_layers=2), 4, 3, rngs=nnx.Rngs(0))
    y = verify_streaming(stage, inputs(3, 36, 4), unit=3, takes_lengths=True)
    assert y.shape == (3, 12, 8)


@pytest.mark.parametrize("layers", [1, 3])
def test_seanet_streams(layers):
    encoder = SeanetEncoder(config(residual_layers=layers), rngs=nnx.Rngs(0))
    y = verify_streaming(encoder, inputs(3, 60, 1), unit=6, takes_lengths=True)
    assert y.shape == (3, 10, 10)


@pytest.mark.parametrize(("steps", "samples"), [(12, 12), (13, 12), (13, 4)])
def test_seanet_in_blocks_of_time_streams(monkeypatch, steps, samples):
    """Blocks of two, one and a third of a latent step: the last stage is not in them."""
    encoder = SeanetEncoder(config(), rngs=nnx.Rngs(0))
    x = inputs(3, 6 * steps, 1)
    whole = np.asarray(jax.jit(lambda x: encoder(x))(x))
    monkeypatch.setattr(dispatch, "BLOCK_VALUES", 3 * samples * 4)
    assert "scan" in str(jax.make_jaxpr(lambda x: encoder(x))(x))
    blocks = verify_streaming(encoder, x, unit=6, chunkings=(1, "random"), takes_lengths=True)
    np.testing.assert_allclose(blocks, whole, atol=1e-5)


def test_channels_and_depth_follow_the_config():
    encoder = SeanetEncoder(config(filters=3, ratios=(2, 2, 5), compress=3), rngs=nnx.Rngs(0))
    assert [s.downsample.kernel.shape for s in encoder.stages] == [
        (4, 3, 6),
        (4, 6, 12),
        (10, 12, 24),
    ]
    assert encoder.stages[2].residuals[0].conv1.kernel.shape == (3, 12, 4)


def test_lengths_are_rounded_up_at_every_stage():
    assert ceil_div(None, 4) is None
    assert ceil_div(jnp.array([0, 1, 4, 5]), 4).tolist() == [0, 1, 1, 2]
