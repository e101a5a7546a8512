"""Fused decode kernels, interpreted on the CPU, against the plain modules."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qtts_jax.config import TransformerConfig
from qtts_jax.generation.sampling import Method, Sampler, choose, filter_logits, gumbel_noise
from qtts_jax.layers import decode_kernels as kernels
from qtts_jax.layers.attention import attention_step
from qtts_jax.layers.norm import RMSNorm
from qtts_jax.layers.rope import rotation
from qtts_jax.modules.transformer import Transformer, block_weights

EPS = 1e-6


def config(**changes):
    sizes = {
        "width": 48,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 16,
        "ffn_width": 96,
        "norm_eps": EPS,
        "rope_theta": 100.0,
        "max_positions": 64,
        "qk_norm": True,
        "init_std": 0.3,
    }
    return TransformerConfig(**(sizes | changes))


def random_model(c, dtype):
    """A stack with random weights, random norm scales included."""
    model = Transformer(c, rngs=nnx.Rngs(0))
    graph, params = nnx.split(model)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [
        (leaf + 0.1 * jax.random.normal(k, leaf.shape)).astype(dtype)
        for leaf, k in zip(leaves, keys, strict=True)
    ]
    return nnx.merge(graph, jax.tree.unflatten(tree, leaves))


def filled_state(model, slots, position, dtype):
    """A cache with garbage in the slots that no position has filled yet."""
    state = model.init_state(1, dtype, slots)
    keys = jax.random.split(jax.random.key(2), 2 * len(state.layers))
    layers = []
    for i, layer in enumerate(state.layers):
        pair = [jax.random.normal(k, layer.keys.shape).astype(dtype) for k in keys[2 * i :][:2]]
        layers.append(type(layer)(*pair))
    return state._replace(layers=tuple(layers), position=jnp.full((1,), position, jnp.int32))


def fused_stack(model, x, state, eps):
    """The stack by kernels: x [1, 1, D] -> [1, 1, D] and the new caches."""
    c = model.config
    cos, sin = (t[0, 0] for t in rotation(state.position[:, None], c.head_dim, c.rope_theta))
    y, caches = x[0, 0], []
    for block, layer in zip(model.layers, state.layers, strict=True):
        y, keys, values = kernels.layer_step(
            y,
            block_weights(block),
            layer.keys[0],
            layer.values[0],
            cos,
            sin,
            state.position[0],
            eps,
            interpret=True,
        )
        caches.append((keys[None], values[None]))
    return model.norm(y)[None, None], caches


@pytest.fixture
def small_blocks(monkeypatch):
    """Several row blocks, column tiles, cache tiles and splits at tiny sizes."""
    monkeypatch.setattr(kernels, "COLUMNS", 16)
    monkeypatch.setattr(kernels, "ATTENTION_TILE", 8)
    monkeypatch.setattr(kernels, "SPLITS", 2)


@pytest.mark.parametrize(
    ("slots", "single", "qk_norm"),
    [(17, True, True), (37, True, False), (37, False, True)],
)
def test_layers_match_the_plain_stack(small_blocks, monkeypatch, slots, single, qk_norm):
    """Float32, from an empty cache to the last slot and a full one."""
    monkeypatch.setattr(kernels, "SINGLE_PROGRAM_SLOTS", 64 if single else 0)
    model = random_model(config(qk_norm=qk_norm, layers=1), jnp.float32)
    x = jax.random.normal(jax.random.key(3), (1, 1, model.config.width))
    fused = jax.jit(lambda x, state: fused_stack(model, x, state, EPS))
    plain = jax.jit(lambda x, state: model.step(x, state))
    for position in (0, 1, 4, 13, slots - 1, slots):
        state = filled_state(model, slots, position, jnp.float32)
        with jax.default_matmul_precision("highest"):
            expected, after = plain(x, state)
            got, caches = fused(x, state)
        largest = float(jnp.abs(expected).max())
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * largest)
        for new, old in zip(caches, after.layers, strict=True):
            for a, b in zip(new, old, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max()))


def test_bfloat16_is_no_further_from_float32_than_the_plain_stack(small_blocks):
    model = random_model(config(init_std=0.15), jnp.bfloat16)
    graph, params = nnx.split(model)
    exact = nnx.merge(graph, jax.tree.map(lambda t: t.astype(jnp.float32), params))
    state = filled_state(model, 21, 13, jnp.bfloat16)
    x = jax.random.normal(jax.random.key(3), (1, 1, 48)).astype(jnp.bfloat16)
    got, caches = jax.jit(lambda x: fused_stack(model, x, state, EPS))(x)
    plain, _ = jax.jit(lambda x: model.step(x, state))(x)
    wide_state = state._replace(layers=jax.tree.map(lambda t: t.astype(jnp.float32), state.layers))
    with jax.default_matmul_precision("highest"):
        truth, _ = jax.jit(lambda x: exact.step(x, wide_state))(x.astype(jnp.float32))

    def error(y):
        return float(jnp.linalg.norm(y.astype(jnp.float32) - truth) / jnp.linalg.norm(truth))

    assert got.dtype == jnp.bfloat16 and caches[0][0].dtype == jnp.bfloat16
    assert error(got) < max(1.5 * error(plain), 0.01)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
def test_plain_definitions_are_the_modules(dtype):
    model = random_model(config(init_std=0.15, layers=1), dtype)
    state = filled_state(model, 9, 5, dtype)
    block, layer = model.layers[0], state.layers[0]
    x = jax.random.normal(jax.random.key(3), (48,)).astype(dtype)
    cos, sin = (t[0, 0] for t in rotation(state.position[:, None], 16, 100.0))
    with jax.default_matmul_precision("highest"):
        got, keys, _ = jax.jit(kernels.plain_layer_step)(
            x, block_weights(block), layer.keys[0], layer.values[0], cos, sin, 5, EPS
        )
        shared = attention_step(model.config, state.position, 1, 9, None)
        want, after = jax.jit(lambda x: block.step(x, layer, shared))(x[None, None])
    tolerance = 1e-5 if dtype == jnp.float32 else 0.03
    scale = float(jnp.abs(want).max())
    as32 = [np.asarray(t, np.float32) for t in (got, want[0, 0], keys, after.keys[0])]
    np.testing.assert_allclose(as32[0], as32[1], rtol=0, atol=tolerance * scale)
    np.testing.assert_allclose(as32[2], as32[3], rtol=0, atol=tolerance * np.abs(as32[3]).max())


def test_one_of_many_matrices_and_no_norm(small_blocks):
    x, scale = jax.random.normal(jax.random.key(0), (2, 48))
    w = jax.random.normal(jax.random.key(1), (3, 24, 48))
    got = kernels.norm_matvec(x, scale, w, EPS, book=jnp.int32(2), interpret=True)
    want = kernels.plain_norm_matvec(x, scale, w, EPS, book=2)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    norm = RMSNorm(48, EPS, rngs=nnx.Rngs(0))
    norm.scale[...] = scale
    np.testing.assert_allclose(got, w[2] @ norm(x), rtol=1e-4, atol=1e-4)
    got = kernels.norm_matvec(x, None, w[0], EPS, interpret=True)
    np.testing.assert_allclose(got, w[0] @ x, rtol=1e-4, atol=1e-4)


def test_int8_weights_are_scaled_by_row(small_blocks):
    x, scale = jax.random.normal(jax.random.key(0), (2, 48))
    w = jax.random.randint(jax.random.key(1), (2, 24, 48), -127, 128, jnp.int8)
    factors = jax.random.uniform(jax.random.key(2), (2, 24)) / 127
    real = w * factors[..., None]
    options = {"weight_scale": factors, "interpret": True}
    close = {"rtol": 1e-5, "atol": 1e-5}
    got = kernels.norm_gate_up(x, scale, w, EPS, **options)
    np.testing.assert_allclose(got, kernels.plain_norm_gate_up(x, scale, real, EPS), **close)
    got = kernels.norm_matvec(x, scale, w, EPS, book=jnp.int32(1), **options)
    np.testing.assert_allclose(got, kernels.plain_norm_matvec(x, scale, real[1], EPS), **close)
    options["weight_scale"] = factors[0]
    got = kernels.matvec_add(x, w[0], jnp.ones(24), **options)
    np.testing.assert_allclose(got, kernels.plain_matvec_add(x, real[0], jnp.ones(24)), **close)


def sampler(temperature, top_k, do_sample=True):
    return Sampler(*(jnp.asarray([v]) for v in (do_sample, temperature, top_k, 1.0)))


def awkward_logits(vocab, kind):
    logits = 3 * jax.random.normal(jax.random.key(vocab), (vocab,))
    if kind == "ties":
        return jnp.round(logits)
    if kind == "zeros":
        return jnp.where(jnp.arange(vocab) % 2, 0.0, -0.0)
    if kind == "blocked":
        return jnp.where(jnp.arange(vocab) % 5 == 0, logits, -jnp.inf)
    return logits - 20 if kind == "negative" else logits


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0, None, None))
def draw(logits, noise, temperature, top_k):
    return kernels.select(logits, noise, temperature, top_k, True, interpret=True)


@pytest.mark.parametrize("kind", ["normal", "negative", "ties", "zeros", "blocked"])
@pytest.mark.parametrize("vocab", [32, 77])
def test_select_keeps_the_same_values_as_the_sort(vocab, kind):
    """Noise that lifts one id over all others finds out whether that id was kept."""
    logits = awkward_logits(vocab, kind)
    for top_k in (1, 5, vocab - 1, vocab, 2**31 - 1):
        kept = filter_logits(logits[None], sampler(0.7, top_k), Method(True, False))[0] > -jnp.inf
        got = draw(logits, 1e4 * jnp.eye(vocab), 0.7, jnp.int32(top_k)) == jnp.arange(vocab)
        np.testing.assert_array_equal(got, kept, err_msg=f"k = {top_k}")


@pytest.mark.parametrize("partial", [True, False], ids=["partial", "sort"])
def test_select_draws_what_choose_draws(partial):
    logits = 3 * jax.random.normal(jax.random.key(0), (16, 77))
    keys = jax.random.split(jax.random.key(1), 16)
    noise = gumbel_noise(keys, 77)
    for temperature, top_k, do_sample in ((0.9, 50, True), (1.3, 5, True), (1.0, 5, False)):
        setting = sampler(temperature, top_k, do_sample)
        rows = Sampler(*(jnp.repeat(t, 16) for t in setting))
        want = choose(logits, noise, rows, Method(True, partial))
        scalars = [t[0] for t in (setting.temperature, setting.top_k, setting.do_sample)]
        axes = (0, 0, None, None, None)
        fused = functools.partial(kernels.select, interpret=True)
        for f in (fused, kernels.plain_select):
            np.testing.assert_array_equal(jax.vmap(f, axes)(logits, noise, *scalars), want)


def test_greedy_select_takes_the_first_of_equals():
    logits = jnp.zeros(40).at[jnp.array([7, 9])].set(2.0)
    noise = jnp.full(40, jnp.nan)
    got = kernels.select(logits, noise, 1.0, 5, False, interpret=True)
    assert int(got) == 7 and got.dtype == jnp.int32


def on_h100():
    """Lower as if for an H100, where this JAX asks for the device to be named."""
    try:
        from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh
    except ImportError:
        return contextlib.nullcontext()
    device = AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu")
    try:
        return use_abstract_mesh(AbstractMesh((), (), abstract_device=device))
    except TypeError:
        return contextlib.nullcontext()


def lowers(f, *args):
    try:
        with on_h100():
            text = jax.jit(f).trace(*args).lower(lowering_platforms=("cuda",)).as_text()
    except RuntimeError as error:
        if "No supported GPU" in str(error):
            pytest.skip("this JAX lowers for a GPU only where there is one")
        raise
    return text.count("stablehlo.custom_call")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize(("width", "ffn"), [(1024, 3072), (2048, 6144)], ids=["0.6B", "1.7B"])
@pytest.mark.parametrize(("slots", "count"), [(17, 5), (32, 5), (256, 5), (8192, 6)])
def test_a_layer_of_real_size_lowers_for_cuda(width, ffn, slots, count, dtype):
    def array(*shape, dtype=dtype):
        return jax.ShapeDtypeStruct(shape, dtype)

    weights = kernels.BlockWeights(
        attention_norm=array(width),
        qkv=array(8, 4, 128, width),
        q_norm=array(128),
        k_norm=array(128),
        out=array(width, 8, 2, 128),
        ffn_norm=array(width),
        gate_up=array(2, ffn, width),
        down=array(width, ffn),
    )
    cache, turn = array(slots, 8, 128), array(64, dtype=jnp.float32)
    position = array(dtype=jnp.int32)
    args = (array(width), weights, cache, cache, turn, turn, position)
    assert lowers(lambda *a: kernels.layer_step(*a, EPS), *args) == count
    heads = array(15, 2048, width)
    assert lowers(
        lambda x, s, w, b: kernels.norm_matvec(x, s, w, EPS, book=b),
        array(width), array(width), heads, position,
    ) == 1  # fmt: skip


@pytest.mark.parametrize("vocab", [2048, 3072])
def test_select_lowers_for_cuda(vocab):
    values = jax.ShapeDtypeStruct((vocab,), jnp.float32)
    scalars = [jax.ShapeDtypeStruct((), t) for t in (jnp.float32, jnp.int32, jnp.bool_)]
    assert lowers(kernels.select, values, values, *scalars) == 1
