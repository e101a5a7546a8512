"""The upsampling stages of the waveform decoder in a stream."""

import numpy as np
import pytest
from flax import nnx

from qtts_jax.modules.upsample_stage import DILATIONS, Residual, UpsampleStage
from tests.support.contract import verify_streaming


def inputs(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("dilation", DILATIONS)
def test_residual_unit_streams(dilation):
    verify_streaming(Residual(4, dilation, rngs=nnx.Rngs(0)), inputs(2, 24, 4))


@pytest.mark.parametrize("rate", [1, 3, 8])
def test_stage_streams(rate):
    stage = UpsampleStage(6, 4, rate, rngs=nnx.Rngs(0))
    y = verify_streaming(stage, inputs(2, 12, 6))
    assert y.shape == (2, 12 * rate, 4)
