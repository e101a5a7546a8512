"""Both halves of the 12 Hz tokenizer in a stream, and the steps they are compiled into."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.tokenizer_12hz import Quirks12Hz, Tokenizer12HzConfig
from qtts_jax.functional import bind, initialize
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.speech_tokenizer.batch_shapes import BATCH_SIZES, cover, group, split
from qtts_jax.speech_tokenizer.programs_12hz import (
    BATCH_BLOCKS,
    BLOCKS,
    MAX_BATCH_FRAMES,
    Programs12Hz,
    programs_12hz,
)
from tests.support.contract import verify_streaming
from tests.support.helpers import GOLDEN


def tiny_config():
    """The golden architecture with smaller factors: 24 samples a frame."""
    path = GOLDEN / "ckpt" / "base" / "speech_tokenizer" / "config.json"
    data = json.loads(path.read_text())
    data["encoder_valid_num_quantizers"] = 5
    data["encode_downsample_rate"] = data["decode_upsample_rate"] = 24
    data["encoder_config"] |= {
        "upsampling_ratios": [4, 3],
        "num_quantizers": 7,
        "num_hidden_layers": 2,
        "sliding_window": 5,
        "_frame_rate": 1000,
    }
    data["decoder_config"] |= {
        "upsample_rates": [3, 2],
        "num_hidden_layers": 2,
        "sliding_window": 4,
        "num_quantizers": 5,
    }
    return Tokenizer12HzConfig.from_hf(data)


@pytest.fixture(scope="module")
def config():
    return tiny_config()


@pytest.fixture(scope="module")
def params(config):
    return initialize(Tokenizer12Hz, config, 0)


def waves(*shape):
    return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)


def codes(config, *shape):
    high = config.decoder.quantizer.entries
    return np.random.default_rng(0).integers(0, high, shape).astype(np.int32)


def encoder(config, params, quirks=None):
    return bind(Programs12Hz(config, quirks or Quirks12Hz()).encoder, params["encoder"])


def test_decoder_streams(config, params):
    model = bind(programs_12hz(config, Quirks12Hz()).decoder, params["decoder"])
    y = verify_streaming(model, codes(config, 2, 12, 5))
    assert y.shape == (2, 12 * 24)
    assert np.abs(y).max() <= 1


@pytest.mark.parametrize(
    "quirks",
    [
        Quirks12Hz(),
        Quirks12Hz.official(),
        pytest.param(Quirks12Hz(downsample_padding="zeros"), marks=pytest.mark.slow),
    ],
    ids=["default", "official", "zeros"],
)
def test_encoder_streams(config, params, quirks):
    model = encoder(config, params, quirks)
    verify_streaming(
        model,
        waves(3, 12 * 24),
        unit=24,
        step=model.embed,
        init_state=functools.partial(model.init_state, capacity=12),
        takes_lengths=True,
    )


@pytest.mark.parametrize(
    "quirks", [Quirks12Hz(), Quirks12Hz.official()], ids=["default", "official"]
)
def test_codes_are_the_same_in_any_chunking_and_at_any_ragged_end(config, params, quirks):
    model = encoder(config, params, quirks)
    x = waves(2, 10 * 24 - 5)
    step = jax.jit(model.step)
    expected = np.asarray(jax.jit(model.__call__)(x))
    assert expected.shape == (2, 10, 5)
    for size in (1, 3, 4):
        state, out = model.init_state(2, jnp.float32, 12), []
        for start in range(0, 10, size):
            block = np.full((2, size * 24), np.nan, np.float32)
            piece = x[:, start * 24 : (start + size) * 24]
            block[:, : piece.shape[1]] = piece
            y, state = step(block, state, jnp.full((2,), piece.shape[1]))
            out.append(np.asarray(y))
        np.testing.assert_array_equal(np.concatenate(out, axis=1)[:, :10], expected)


def test_quirks_do_not_change_the_parameters(config):
    trees = [
        jax.eval_shape(lambda q=q: _state(config, q)) for q in (Quirks12Hz(), Quirks12Hz.official())
    ]
    assert jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])


def _state(config, quirks):
    from flax import nnx

    return nnx.to_pure_dict(nnx.state(Tokenizer12Hz(config, quirks, rngs=nnx.Rngs(0))))


@pytest.mark.parametrize("quirk", ["encoder_window", "downsample_padding"])
def test_each_encoder_quirk_changes_the_vectors(config, params, quirk):
    official = Quirks12Hz(encoder_window=False, downsample_padding="replicate")
    other = dataclasses.replace(
        official, **{quirk: {"encoder_window": True, "downsample_padding": "zeros"}[quirk]}
    )
    x = waves(1, 12 * 24)
    results = []
    for quirks in (official, other):
        model = encoder(config, params, quirks)
        embed = jax.jit(model.embed)
        results.append(np.asarray(embed(x, model.init_state(1, jnp.float32, 12))[0]))
    assert np.abs(results[0] - results[1]).max() > 1e-4


def test_bfloat16_stays_bfloat16_and_close(config, params):
    graph = programs_12hz(config, Quirks12Hz())
    narrow = jax.tree.map(lambda t: t.astype(jnp.bfloat16), params["decoder"])
    given = codes(config, 1, 8, 5)
    exact, _ = graph.decode(params["decoder"], given, graph.decoder_state(params["decoder"], 1))
    wave, state = graph.decode(narrow, given, graph.decoder_state(narrow, 1))
    assert wave.dtype == jnp.bfloat16
    kinds = {leaf.dtype for leaf in jax.tree.leaves(state)}
    assert kinds == {jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.int32)}
    error = np.asarray(wave, np.float32) - np.asarray(exact)
    assert np.abs(error).max() < 0.05 * max(1e-3, np.abs(np.asarray(exact)).max())


def test_mono_is_required(config):
    stereo = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, channels=2))
    with pytest.raises(AssertionError, match="mono"):
        Programs12Hz(stereo, Quirks12Hz())


@pytest.mark.parametrize("rows", BATCH_SIZES)
def test_blocks_cover_every_length_with_little_padding(rows):
    for frames in range(1, 700):
        sizes = cover(frames, BATCH_BLOCKS[rows])
        assert sum(sizes) >= frames
        assert sum(sizes[:-1]) < frames
        assert all(size in BLOCKS and size * rows <= MAX_BATCH_FRAMES for size in sizes)
        last = frames - sum(sizes[:-1])
        assert sizes[-1] <= max(BLOCKS[-1], 1.25 * last)


def test_stream_pieces_are_exact_powers_of_two():
    for frames in range(700):
        sizes = split(frames, BLOCKS[0])
        assert sum(sizes) == frames
        assert all(size & (size - 1) == 0 and 1 <= size <= BLOCKS[0] for size in sizes)


def test_groups_hold_every_item_once_and_put_similar_lengths_together():
    lengths = [5, 900, 6, 7, 901, 8, 9, 10, 11, 12, 13]
    groups = group(lengths)
    assert sorted(i for rows in groups for i in rows) == list(range(11))
    assert [len(rows) for rows in groups] == [8, 2, 1]
    assert {1, 4} <= set(groups[0])


def test_equal_configurations_share_programs(config):
    assert programs_12hz(config, Quirks12Hz()) is programs_12hz(tiny_config(), Quirks12Hz())
    assert programs_12hz(config, Quirks12Hz()) is not programs_12hz(config, Quirks12Hz.official())
