"""Causal convolutions against their definitions, one output at a time, and in a stream."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qtts_jax.layers import dispatch
from qtts_jax.layers.conv import Conv, ConvTranspose, depthwise
from tests.support.contract import verify_streaming

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def numbers_do_not_depend_on_other_tests():
    global RNG
    RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def randomized(layer):
    """The layer with random values in every parameter, biases included."""
    graphdef, params = nnx.split(layer)
    return nnx.merge(graphdef, jax.tree.map(lambda v: jnp.asarray(normal(*v.shape)), params))


def causal_conv(x, kernel, bias, stride, dilation, groups, edge):
    """The definition: out[t] = sum_i kernel[i] x[(t + 1) * stride - span + i * dilation]."""
    k, per_group, out_channels = kernel.shape
    span = (k - 1) * dilation + 1
    steps = -(-x.shape[0] // stride)
    y = np.zeros((steps, out_channels))
    out_per_group = out_channels // groups
    for t in range(steps):
        for i in range(k):
            at = (t + 1) * stride - span + i * dilation
            if not 0 <= at < len(x):
                if edge == "zeros":
                    continue
                at = min(max(at, 0), len(x) - 1)
            for g in range(groups):
                inputs = x[at, g * per_group : (g + 1) * per_group]
                columns = slice(g * out_per_group, (g + 1) * out_per_group)
                y[t, columns] += inputs @ kernel[i, :, columns]
    return y if bias is None else y + bias


CASES = [
    {"in_channels": 3, "out_channels": 5, "kernel": 7},
    {"in_channels": 3, "out_channels": 4, "kernel": 1},
    {"in_channels": 2, "out_channels": 2, "kernel": 7, "dilation": 9},
    {"in_channels": 3, "out_channels": 3, "kernel": 3, "dilation": 2, "bias": False},
    {"in_channels": 6, "out_channels": 6, "kernel": 7, "groups": 6},
    {"in_channels": 6, "out_channels": 4, "kernel": 3, "groups": 2},
    {"in_channels": 4, "out_channels": 4, "kernel": 4, "groups": 4, "stride": 2, "dilation": 2},
    {"in_channels": 2, "out_channels": 4, "kernel": 8, "stride": 4},
    {"in_channels": 2, "out_channels": 4, "kernel": 4, "stride": 4},
    {
        "in_channels": 3,
        "out_channels": 3,
        "kernel": 4,
        "stride": 2,
        "bias": False,
        "edge": "replicate",
    },
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conv_is_its_definition(case):
    layer = randomized(Conv(**case, rngs=nnx.Rngs(0)))
    stride = case.get("stride", 1)
    x = normal(2, 6 * stride, case["in_channels"])
    with jax.default_matmul_precision("highest"):
        y = layer(jnp.asarray(x))
    bias = None if layer.bias is None else np.asarray(layer.bias[...])
    options = (stride, case.get("dilation", 1), case.get("groups", 1), case.get("edge", "zeros"))
    for row in range(2):
        expected = causal_conv(x[row], np.asarray(layer.kernel[...]), bias, *options)
        np.testing.assert_allclose(y[row], expected, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conv_streams(case):
    layer = randomized(Conv(**case, rngs=nnx.Rngs(0)))
    stride = case.get("stride", 1)
    verify_streaming(
        layer,
        normal(3, 12 * stride, case["in_channels"]),
        unit=stride,
        takes_lengths=True,
        receptive_field=layer.memory + stride,
    )


@pytest.mark.parametrize("edge", ["zeros", "replicate"])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
def test_ragged_end_is_completed_like_a_padded_sequence(edge, n):
    layer = randomized(Conv(2, 3, 4, stride=2, edge=edge, rngs=nnx.Rngs(0)))
    x = normal(1, n, 2)
    padded = np.full((1, 10, 2), np.nan, np.float32)
    padded[:, :n] = x
    state = layer.init_state(1, jnp.float32)
    with jax.default_matmul_precision("highest"):
        y, _ = layer.step(jnp.asarray(padded), state, jnp.array([n]))
    kernel, bias = (np.asarray(p[...]) for p in (layer.kernel, layer.bias))
    expected = causal_conv(x[0], kernel, bias, 2, 1, 1, edge)
    np.testing.assert_allclose(y[0, : len(expected)], expected, atol=1e-5)


def test_conv_without_memory_has_no_state():
    assert Conv(2, 2, 1, rngs=nnx.Rngs(0)).init_state(3, jnp.float32) == ()
    assert ConvTranspose(2, 2, 4, stride=4, rngs=nnx.Rngs(0)).init_state(3, jnp.float32) == ()


def test_input_that_does_not_fill_the_stride_is_refused():
    layer = Conv(2, 2, 4, stride=2, rngs=nnx.Rngs(0))
    with pytest.raises(AssertionError, match="multiple of stride"):
        layer(jnp.zeros((1, 3, 2)))


def test_kernel_that_skips_inputs_is_refused():
    with pytest.raises(AssertionError, match="skips"):
        Conv(2, 2, 2, stride=3, rngs=nnx.Rngs(0))
    with pytest.raises(AssertionError, match="multiple"):
        ConvTranspose(2, 2, 5, stride=2, rngs=nnx.Rngs(0))


def test_depthwise_is_the_grouped_convolution():
    x, kernel = jnp.asarray(normal(2, 20, 5)), jnp.asarray(normal(3, 5))
    for stride, dilation in ((1, 1), (1, 4), (2, 1), (3, 2)):
        expected = jax.lax.conv_general_dilated(
            x,
            kernel[:, None],
            (stride,),
            "VALID",
            rhs_dilation=(dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=5,
        )
        np.testing.assert_allclose(depthwise(x, kernel, stride, dilation), expected, atol=1e-5)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 4), (2, 1), (3, 2)])
def test_a_convolution_of_one_channel_as_a_sum_is_the_same(monkeypatch, stride, dilation):
    layer = randomized(Conv(1, 5, 7, stride=stride, dilation=dilation, rngs=nnx.Rngs(0)))
    x = normal(2, 12, 1)
    found, gradients = {}, {}
    for as_sum in (True, False):
        monkeypatch.setattr(dispatch, "one_channel_as_sum", lambda as_sum=as_sum: as_sum)
        found[as_sum] = layer(x)
        gradients[as_sum] = jax.grad(lambda x: jnp.sum(layer(x) ** 2))(x)
    assert found[True].shape == (2, 12 // stride, 5)
    np.testing.assert_allclose(found[True], found[False], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(gradients[True], gradients[False])


TRANSPOSED = [(6, 3), (2, 2), (16, 8), (6, 2)]


@pytest.mark.parametrize(("kernel", "stride"), TRANSPOSED)
def test_transposed_conv_adds_each_input_to_its_outputs(kernel, stride):
    layer = randomized(ConvTranspose(3, 2, kernel, stride=stride, rngs=nnx.Rngs(0)))
    x = normal(2, 5, 3)
    weights, bias = (np.asarray(p[...]) for p in (layer.kernel, layer.bias))
    weights = weights.swapaxes(1, 2).reshape(kernel, 3, 2)
    expected = np.zeros((2, 5 * stride + kernel, 2))
    for t in range(5):
        for i in range(kernel):
            expected[:, t * stride + i] += x[:, t] @ weights[i]
    with jax.default_matmul_precision("highest"):
        y = layer(jnp.asarray(x))
    np.testing.assert_allclose(y, expected[:, : 5 * stride] + bias, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride"), TRANSPOSED)
def test_transposed_conv_streams(kernel, stride):
    layer = randomized(ConvTranspose(3, 2, kernel, stride=stride, rngs=nnx.Rngs(0)))
    verify_streaming(layer, normal(2, 9, 3), receptive_field=layer.memory + 1)


@pytest.mark.parametrize("dilation", [3, 9])
@pytest.mark.parametrize("steps", [1, 4, 18])
def test_a_dilated_convolution_over_folded_time_is_the_same(monkeypatch, dilation, steps):
    conv = Conv(6, 5, 7, dilation=dilation, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, steps, 6))
    state = jax.random.normal(jax.random.key(2), (2, conv.memory, 6))
    plain, _ = conv.step(x, state)
    monkeypatch.setattr(dispatch, "dilation_as_grid", lambda: True)
    folded, _ = conv.step(x, state)
    np.testing.assert_allclose(folded, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 3), (2, 1)])
def test_a_convolution_as_a_product_is_the_same(monkeypatch, stride, dilation):
    layers = (
        randomized(Conv(6, 5, 7, stride=stride, dilation=dilation, rngs=nnx.Rngs(0))),
        randomized(ConvTranspose(6, 5, 4, stride=2, rngs=nnx.Rngs(0))),
    )
    x = normal(2, 8, 6)
    plain = [layer(x) for layer in layers]
    monkeypatch.setattr(dispatch, "convolve_by_product", lambda rows, steps: True)
    for layer, expected in zip(layers, plain, strict=True):
        np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)
