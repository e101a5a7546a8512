"""The speaker encoder equals the official one, alone and right-padded in a batch."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qtts_jax.configs.tts import SpeakerEncoderConfig
from qtts_jax.configs.tts_sections import SPEAKER_ENCODER
from qtts_jax.errors import AudioError, ConfigError
from qtts_jax.functional import abstract, cast, initialize, logical_axes
from qtts_jax.models.speaker_encoder import SpeakerEncoder, min_frames
from qtts_jax.modules.ecapa_tdnn import ReflectConv
from tests.golden_tools import detweights

GOLDEN = Path(__file__).parents[1] / "golden"
RENAMED = {
    "res2net_block": "res2net",
    "se_block": "se",
    "asp": "pooling",
    "fc": "output",
    "weight": "kernel",
}
RELEASED = SpeakerEncoderConfig(embedding_dim=1024, sample_rate=24000)
TINY = SpeakerEncoderConfig(
    embedding_dim=7,
    sample_rate=24000,
    n_mels=10,
    channels=(12, 12, 12, 24),
    kernel_sizes=(4, 3, 5, 3),
    dilations=(1, 2, 3, 1),
    attention_channels=5,
    res2net_scale=3,
    se_channels=4,
)
BUCKET = 32


@pytest.fixture(autouse=True)
def _exact_products():
    with jax.default_matmul_precision("highest"):
        yield


def leaves(tree) -> dict[str, object]:
    """Dotted path -> leaf; tuples are leaves."""
    flat = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: isinstance(x, tuple))[0]
    return {".".join(str(key.key) for key in path): leaf for path, leaf in flat}


def ours(name: str) -> str:
    """Our dotted path of an official tensor name."""
    return ".".join(RENAMED.get(part, part) for part in name.split(".")[1:])


@functools.partial(jax.jit, static_argnums=0)
def run(graphdef, params, mel, lengths=None) -> jax.Array:
    """Embeddings [B, E] of mel [B, T, M]."""
    return nnx.merge(graphdef, params)(mel, lengths)


@functools.partial(jax.jit, static_argnums=0)
def run_stages(graphdef, params, mel) -> list[jax.Array]:
    """What the blocks, the aggregation and the pooling give for mel [B, T, M]."""
    model = nnx.merge(graphdef, params)
    x, lengths, outputs = mel, jnp.full(mel.shape[:1], mel.shape[1]), []
    for block in model.blocks:
        x = block(x, lengths)
        outputs.append(x)
    x = model.mfa(jnp.concatenate(outputs[1:], axis=-1), lengths)
    return [*outputs, x, model.pooling(x, lengths)]


def assert_close(actual, expected, relative):
    """Largest difference relative to the largest expected value."""
    actual, expected = np.asarray(actual, np.float32), np.asarray(expected, np.float32)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= relative * np.abs(expected).max()


@pytest.fixture(scope="module")
def golden():
    """The official small model: (graphdef, params, recorded arrays)."""
    config = json.loads((GOLDEN / "ckpt/base/config.json").read_text())["speaker_encoder_config"]
    manifest = json.loads((GOLDEN / "ckpt/base/manifest.json").read_text())
    manifest["tensors"] = {
        k: v for k, v in manifest["tensors"].items() if k.startswith("speaker_encoder.")
    }
    weights = detweights.build(manifest)
    weights = {ours(k): v.transpose(2, 1, 0) if v.ndim == 3 else v for k, v in weights.items()}
    config = SPEAKER_ENCODER.read(config)
    graphdef, shapes = abstract(SpeakerEncoder, config)
    assert weights.keys() == leaves(shapes).keys()
    params = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.asarray(weights[".".join(str(key.key) for key in path)]), shapes
    )
    return graphdef, params, np.load(GOLDEN / "speaker_encoder.npz")


@pytest.fixture(scope="module")
def tiny():
    """(params, jitted (params, mel, lengths) -> embeddings, list of its traces)."""
    graphdef, _ = abstract(SpeakerEncoder, TINY)
    traces = []

    @jax.jit
    def embed(params, mel, lengths):
        traces.append(mel.shape)
        return nnx.merge(graphdef, params)(mel, lengths)

    return initialize(SpeakerEncoder, TINY, 0), embed, traces


def mels(lengths, seed=0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(-4, 2, (n, TINY.n_mels)).astype(np.float32) for n in lengths]


def padded(rows, value) -> np.ndarray:
    batch = np.full((len(rows), BUCKET, TINY.n_mels), value, np.float32)
    for target, row in zip(batch, rows, strict=True):
        target[: len(row)] = row
    return batch


@pytest.mark.parametrize("index", [0, 1])
def test_embedding_equals_the_official_one(golden, index):
    graphdef, params, recorded = golden
    embedding = run(graphdef, params, recorded[f"mel{index}"][None])
    assert embedding.dtype == jnp.float32
    assert_close(embedding[0], recorded[f"embedding{index}"], 1e-4)


def test_every_stage_equals_the_official_one(golden):
    graphdef, params, recorded = golden
    *blocks, mfa, pooled = run_stages(graphdef, params, recorded["mel0"][None])
    for i, block in enumerate(blocks):
        assert_close(block[0].T, recorded[f"block{i}_0"], 1e-4)
    assert_close(mfa[0].T, recorded["mfa_0"], 1e-4)
    assert_close(pooled[0], recorded["asp_0"][:, 0], 1e-4)


def test_official_mels_of_two_lengths_in_one_padded_batch(golden):
    graphdef, params, recorded = golden
    rows = [recorded["mel0"], recorded["mel1"]]
    batch = np.full((2, 128, 128), np.nan, np.float32)
    for target, row in zip(batch, rows, strict=True):
        target[: len(row)] = row
    embeddings = run(graphdef, params, batch, jnp.array([len(row) for row in rows]))
    assert_close(embeddings, np.stack([recorded["embedding0"], recorded["embedding1"]]), 1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e4])
def test_padding_has_no_effect(tiny, value):
    params, embed, _ = tiny
    lengths = [min_frames(TINY), min_frames(TINY) + 1, 19, BUCKET - 1, BUCKET]
    rows = mels(lengths)
    together = embed(params, padded(rows, value), jnp.array(lengths))
    for row, embedding in zip(rows, together, strict=True):
        alone = embed(params, row[None], None)[0]
        assert_close(embedding, alone, 2e-6)


def test_padding_has_no_effect_on_kernels_of_one_frame():
    # Nothing is reflected here, so the padding itself runs through every layer.
    config = dataclasses.replace(TINY, kernel_sizes=(1, 1, 1, 1))
    graphdef, _ = abstract(SpeakerEncoder, config)
    params = initialize(SpeakerEncoder, config, 0)
    (row,) = mels([19])
    together = run(graphdef, params, padded([row], np.nan), jnp.array([19]))
    assert_close(together, run(graphdef, params, row[None]), 2e-6)


def test_one_compilation_serves_every_length_of_a_bucket(tiny):
    params, embed, traces = tiny
    traces.clear()
    embed.clear_cache()
    for length in (min_frames(TINY), 17, BUCKET):
        embed(params, padded(mels([length]), 0.0), jnp.array([length]))
    assert len(traces) == 1


def test_length_is_not_ignored(tiny):
    params, embed, _ = tiny
    batch = padded(mels([BUCKET]), 0.0)
    short, whole = (embed(params, batch, jnp.array([n])) for n in (20, BUCKET))
    assert np.abs(np.asarray(short - whole)).max() > 1e-3 * np.abs(np.asarray(whole)).max()


def test_impossible_lengths_give_nan_in_their_row_only(tiny):
    params, embed, _ = tiny
    lengths = jnp.array([0, min_frames(TINY) - 1, min_frames(TINY), BUCKET, BUCKET + 1])
    embeddings = embed(params, padded(mels([BUCKET] * 5), 0.0), lengths)
    finite = np.isfinite(np.asarray(embeddings))
    np.testing.assert_array_equal(finite.all(axis=1), [False, False, True, True, False])
    assert not finite[[0, 1, 4]].any()


def test_too_short_input_names_the_least_length(tiny):
    params, embed, _ = tiny
    least = min_frames(TINY)
    assert np.isfinite(np.asarray(embed(params, mels([least])[0][None], None))).all()
    with pytest.raises(AudioError, match=f"at least {least} mel frames, got {least - 1}"):
        embed(params, mels([least - 1])[0][None], None)


def test_least_length_follows_from_kernels_and_dilations():
    assert min_frames(RELEASED) == 5
    assert min_frames(TINY) == 7
    assert min_frames(dataclasses.replace(TINY, kernel_sizes=(1, 1, 1, 1))) == 1
    # With one group the inner blocks have no filter to reflect for.
    assert min_frames(dataclasses.replace(TINY, res2net_scale=1)) == 3


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (4, 1), (2, 3), (5, 2)])
def test_convolution_reflects_at_the_end_of_each_row(kernel, dilation):
    conv = ReflectConv(2, 3, kernel, dilation, rngs=nnx.Rngs(1))
    x = np.random.default_rng(2).standard_normal((2, 11, 2)).astype(np.float32)
    lengths = [11, 6]
    outputs = np.asarray(conv(jnp.asarray(x), jnp.array(lengths)))
    margin = dilation * (kernel - 1)
    for row, output, length in zip(x, outputs, lengths, strict=True):
        sides = (margin // 2, margin - margin // 2)
        wide = np.pad(row[:length], (sides, (0, 0)), mode="reflect")
        expected = sum(
            wide[tap * dilation : tap * dilation + length] @ np.asarray(conv.kernel[...])[tap]
            for tap in range(kernel)
        )
        np.testing.assert_allclose(output[:length], expected, atol=1e-5)


def test_released_parameter_tree_has_a_place_for_every_released_tensor():
    lines = (GOLDEN / "keys/keys_0.6B-Base.txt").read_text().splitlines()
    released = dict(line.split("\t") for line in lines if line.startswith("speaker_encoder."))
    expected = {ours(name): tuple(json.loads(shape)[::-1]) for name, shape in released.items()}
    shapes = leaves(abstract(SpeakerEncoder, RELEASED)[1])
    assert {name: leaf.shape for name, leaf in shapes.items()} == expected


def test_every_parameter_names_its_axes():
    shapes = leaves(abstract(SpeakerEncoder, TINY)[1])
    axes = leaves(logical_axes(SpeakerEncoder, TINY))
    assert {name: len(names) for name, names in axes.items()} == {
        name: len(leaf.shape) for name, leaf in shapes.items()
    }
    assert all(names[-1] == "conv_out" for names in axes.values())


def test_bfloat16_parameters_take_a_float32_mel(tiny):
    params, embed, _ = tiny
    batch, lengths = padded(mels([25]), np.nan), jnp.array([25])
    half = embed(cast(params, jnp.bfloat16), batch, lengths)
    assert half.dtype == jnp.bfloat16
    # bfloat16 keeps eight bits: a relative step of 2^-8 for each value on the way.
    assert_close(half, embed(params, batch, lengths), 0.03)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"channels": (12, 24), "kernel_sizes": (3, 1), "dilations": (1, 1)}, "at least 3"),
        ({"dilations": (1, 2, 3)}, "one length"),
        ({"channels": (12, 12, 6, 18)}, "must be equal"),
        ({"channels": (12, 12, 12, 36)}, "must be the 24 channels"),
        ({"res2net_scale": 5}, "multiple of enc_res2net_scale"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, fault):
    with pytest.raises(ConfigError, match=fault):
        abstract(SpeakerEncoder, dataclasses.replace(TINY, **change))
