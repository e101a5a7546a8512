"""Discriminators against their published form, and their learning on a toy problem."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from qtts_jax.errors import ConfigError
from qtts_jax.functional import bind
from qtts_jax.training.tokenizer.config import DiscriminatorConfig
from qtts_jax.training.tokenizer.discriminators import (
    Discriminators,
    PeriodDiscriminator,
    SpectrumDiscriminator,
)
from qtts_jax.training.tokenizer.discriminators.weight_norm import WeightNormConv
from qtts_jax.training.tokenizer.losses import discriminator_loss

CONFIG = DiscriminatorConfig(
    periods=(2, 3), period_channels=(4, 6), windows=(64, 32), spectrum_channels=3
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def waves(rng, rows, samples):
    return rng.standard_normal((rows, samples)).astype(np.float32)


def make(module, *arguments):
    """Graph, initial parameters, and both together as a jitted function of its inputs."""

    def build():
        return module(*arguments, rngs=nnx.Rngs(0))

    graph = nnx.graphdef(nnx.eval_shape(build))
    params = nnx.to_pure_dict(jax.jit(lambda: nnx.state(build()))())
    return (
        graph,
        params,
        lambda x: jax.device_get(jax.jit(lambda p, x: bind(graph, p)(x))(params, x)),
    )


def test_layer_is_a_convolution_with_kernels_of_the_learned_norm(rng):
    layer = WeightNormConv(2, 3, (3, 5), stride=(1, 2), dilation=(2, 1), rngs=nnx.Rngs(0))
    layer.gain[...] = jnp.array([0.5, 2.0, 3.0])
    layer.bias[...] = jnp.array([0.1, -0.2, 0.3])
    direction = np.asarray(layer.direction[...])
    x = rng.standard_normal((1, 6, 8, 2)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    expected = np.zeros((1, 6, 4, 3))
    for o, (gain, bias) in enumerate(((0.5, 0.1), (2.0, -0.2), (3.0, 0.3))):
        kernel = gain * direction[..., o] / np.linalg.norm(direction[..., o])
        for t in range(6):
            for f in range(4):
                patch = padded[0, t : t + 5 : 2, 2 * f : 2 * f + 5]
                expected[0, t, f, o] = (patch * kernel).sum() + bias
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, atol=1e-5)


def test_layers_keep_the_level_of_their_input_at_the_start():
    rngs = nnx.Rngs(0)
    x = jax.random.normal(jax.random.key(1), (4, 300, 16))
    for _ in range(6):
        x = jax.nn.relu(WeightNormConv(16, 16, (5,), rngs=rngs)(x))
    assert 0.3 < float(jnp.sqrt(jnp.mean(jnp.square(x)))) < 3


@pytest.mark.parametrize(
    ("steps", "width", "stride", "dilation"),
    [(7, 9, 2, 1), (13, 17, 2, 4), (8, 16, 1, 2), (5, 6, 3, 1), (9, 8, 3, 2), (6, 5, 1, 1)],
)
def test_strides_and_dilations_are_folded_without_a_difference(steps, width, stride, dilation):
    layer = WeightNormConv(
        3, 4, (3, 9), stride=(1, stride), dilation=(dilation, 1), rngs=nnx.Rngs(0)
    )
    x = jax.random.normal(jax.random.key(1), (2, steps, width, 3))
    kernel = np.asarray(layer.direction[...])
    kernel = kernel * np.sqrt(2 / np.sum(kernel**2, axis=(0, 1, 2)))
    expected = jax.lax.conv_general_dilated(
        x,
        jnp.asarray(kernel),
        (1, stride),
        [(dilation, dilation), (4, 4)],
        rhs_dilation=(dilation, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


@pytest.mark.parametrize("samples", [60, 59])
def test_period_discriminator_sees_every_period_th_sample(samples, rng):
    graph, params, judge = make(PeriodDiscriminator, CONFIG, 3)
    wave = waves(rng, 2, samples)
    logits, features = judge(wave)

    @jax.jit
    def one_phase(x):
        model, outputs = bind(graph, params), []
        x = x[None, :, None]
        for layer in model.layers:
            x = jax.nn.leaky_relu(layer(x), 0.1)
            outputs.append(x[0])
        return model.output(x)[0], outputs

    full = np.pad(wave, ((0, 0), (0, 60 - samples)), mode="reflect")
    for row in range(2):
        for phase in range(3):
            expected, layers = one_phase(full[row, phase::3])
            np.testing.assert_allclose(logits[3 * row + phase], expected, atol=1e-5)
            for feature, layer in zip(features, layers, strict=True):
                np.testing.assert_allclose(feature[3 * row + phase], layer, atol=1e-5)
    assert features[0].shape == (6, 7, 4)  # 20 samples of one phase at stride 3


def test_spectrum_discriminator_hears_loudness_alike_at_every_window(rng):
    wave = waves(rng, 1, 4096)
    levels = [
        make(SpectrumDiscriminator, CONFIG, window)[2](wave)[1][0].std() for window in (64, 1024)
    ]
    assert levels[0] == pytest.approx(levels[1], rel=0.2)


def test_all_discriminators_judge(rng):
    logits, features = make(Discriminators, CONFIG)[2](waves(rng, 2, 300))
    assert len(logits) == len(features) == 4
    assert [len(layers) for layers in features] == [2, 2, 5, 5]
    assert logits[2].shape[0] == 2
    assert logits[2].shape[-1] == 1


def test_configuration_without_any_is_refused():
    with pytest.raises(ConfigError, match="set TokenizerTraining.discriminator to None"):
        DiscriminatorConfig(periods=(), windows=())


def test_loss_falls_when_tones_and_noise_are_to_be_told_apart(rng):
    graph, params, _ = make(Discriminators, CONFIG)
    tones = np.stack([np.sin(0.1 * (i + 2) * np.arange(192)) for i in range(4)])
    real, fake = jnp.asarray(tones, jnp.float32), jnp.asarray(waves(rng, 4, 192))

    def loss(params):
        model = bind(graph, params)
        return discriminator_loss(model(real)[0], model(fake)[0])

    optimizer = optax.adam(1e-2)

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, optimizer.init(params)), length=60)[1]

    values = train(params)
    assert values[0] == pytest.approx(2.0, abs=0.2)  # undecided: both hinges at one
    assert values[-1] < 0.3
