"""A 25 Hz encoder that begins as the encoder of Whisper."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.data.whisper import WhisperConfig, WhisperEncoder
from qtts_jax.errors import ConfigError
from qtts_jax.functional import abstract, bind
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.models.tokenizer_25hz import Encoder25Hz
from qtts_jax.training.tokenizer_25hz.encoder_task import EncoderTask
from qtts_jax.training.tokenizer_25hz.whisper_start import whisper_start
from tests.support.small_tokenizer_25hz import HEADS, toy_config, toy_transcripts

TOY = toy_config(codebook_width=32)
CONFIG = replace(TOY.encoder, width=32, heads=2, layers=3, quantizer_layer=2)
SIZES = WhisperConfig(n_mels=20, width=32, heads=2, layers=3, window=1)


@pytest.fixture(scope="module", autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module")
def whisper():
    """Random parameters of the size of trained ones, biases and norms too."""
    rng = np.random.default_rng(0)

    def draw(x):
        return jnp.asarray(rng.normal(0, x.shape[-1] ** -0.5, x.shape), jnp.float32)

    return jax.tree.map(draw, abstract(WhisperEncoder, SIZES)[1])


@pytest.fixture(scope="module")
def encoder(whisper):
    return bind(abstract(Encoder25Hz, CONFIG)[0], whisper_start(CONFIG, SIZES, whisper, seed=1))


@pytest.fixture(scope="module")
def mel():
    """One window of 20 steps; the second row ends after 12."""
    return np.random.default_rng(2).standard_normal((2, 40, 20)).astype(np.float32)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_features_of_a_window_are_those_of_whisper(whisper, encoder, mel, layers):
    """After the blocks in front of the codebook (2), and after others."""
    lengths = jnp.array([40, 24])
    found = jax.jit(lambda m: encoder.norm(encoder.hidden(m, lengths, layers=layers)))(mel)
    teacher = abstract(WhisperEncoder, replace(SIZES, layers=layers))[0]
    first = whisper | {"layers": {i: whisper["layers"][i] for i in range(layers)}}
    run = jax.jit(lambda m: bind(teacher, first)(m))
    np.testing.assert_allclose(found[:1], run(mel[:1]), atol=2e-5)
    np.testing.assert_allclose(found[1:, :12], run(mel[1:, :24]), atol=2e-5)


def test_what_stands_between_the_blocks_starts_as_the_identity(encoder, mel):
    """Two steps are averaged for a code, and a code is repeated for two steps."""
    lengths = jnp.array([40, 40])
    hidden = encoder.hidden(mel, lengths)
    pairs = hidden.reshape(2, 10, 2, 32).mean(axis=2)
    np.testing.assert_allclose(encoder.embed(mel, lengths), pairs, atol=1e-5)
    np.testing.assert_allclose(encoder.upsample(pairs), np.repeat(pairs, 2, axis=1), atol=1e-5)
    np.testing.assert_allclose(encoder.positioned(pairs), pairs, atol=1e-5)


def test_all_of_whisper_is_copied_and_the_rest_is_random(whisper):
    found = flatten_params(whisper_start(CONFIG, SIZES, whisper, seed=1))
    other = flatten_params(whisper_start(CONFIG, SIZES, whisper, seed=2))
    for name, value in flatten_params(whisper).items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    tree = abstract(Encoder25Hz, CONFIG)[1]
    assert {n: x.shape for n, x in found.items()} == {
        n: x.shape for n, x in flatten_params(tree).items()
    }
    drawn = {name for name in found if not np.array_equal(found[name], other[name])}
    assert {"output/kernel", "ends"} <= drawn
    assert not any(name.startswith(("conv", "layers", "norm", "downsample")) for name in drawn)


def test_a_model_without_downsampling_and_positions_can_start_too(whisper):
    plain = replace(CONFIG, downsample=1, positions_after_quantizer=False, codebook_width=8)
    tree = whisper_start(plain, SIZES, whisper, seed=0)
    assert jax.tree.structure(tree) == jax.tree.structure(abstract(Encoder25Hz, plain)[1])


def test_other_sizes_are_refused(whisper):
    wrong = replace(CONFIG, n_mels=10, layers=4)
    with pytest.raises(ConfigError, match="needs n_mels 20, n_layer 3 in .*, not 10, 4"):
        whisper_start(wrong, SIZES, whisper, seed=0)


@pytest.mark.slow
def test_the_first_batch_fills_the_codebook(whisper):
    """By k-means on Whisper's features; the random entries of the tree are far from these."""
    config = replace(TOY, encoder=CONFIG)
    tree = whisper_start(CONFIG, SIZES, whisper, seed=0)
    as_it_is = tree | {"quantizer": tree["quantizer"] | {"initialized": jnp.ones((1,))}}
    away = []
    for start in (tree, as_it_is):
        task = EncoderTask(config, HEADS, dtype=jnp.float32, start=start)
        params, extras = task.init(jax.random.key(0))
        found = jax.jit(task.gradients)(params, extras, toy_transcripts(), jax.random.key(1))
        assert float(found[1]["book"]["initialized"][0, 0]) == 1
        away.append(float(found[2]["commitment"]))
    assert away[0] < 0.5 * away[1]
