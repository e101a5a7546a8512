"""Decoding kernels, interpreted on the CPU, against the plain definitions and modules."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qtts_jax.configs.tts import TransformerConfig
from qtts_jax.generation.sampling import (
    HeadSampling,
    SamplerParams,
    filter_logits,
    gumbel_noise,
    sample,
)
from qtts_jax.layers import dispatch
from qtts_jax.layers.kernels import decode_attention, matvec
from qtts_jax.layers.kernels.top_k import select
from qtts_jax.layers.norm import RMSNorm
from qtts_jax.layers.quantized_weights import dense, quantize
from qtts_jax.modules.transformer import Transformer

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


def filled_state(model, slots, positions, dtype):
    """Caches with garbage in the slots that no position has filled yet."""
    state = model.init_state(len(positions), dtype, slots)
    keys = jax.random.split(jax.random.key(2), 2 * len(state.layers))
    layers = []
    for i, layer in enumerate(state.layers):
        pair = [jax.random.normal(k, layer.keys.shape).astype(dtype) for k in keys[2 * i :][:2]]
        layers.append(type(layer)(*pair))
    return state._replace(layers=tuple(layers), position=jnp.asarray(positions, jnp.int32))


def steps(model, monkeypatch):
    """The jitted step of the stack by kernels and by the plain modules."""

    def by(backend):
        def step(x, state):
            with monkeypatch.context() as patch:
                patch.setattr(dispatch, "override", backend)
                return model.step(x, state)

        return jax.jit(step)

    return by("interpret"), by("plain")


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks, tiles and splits at tiny sizes; three rows count as many."""
    forget_kernels()
    monkeypatch.setattr(decode_attention, "SMALL_SLOTS", 20)
    monkeypatch.setattr(matvec, "COLUMNS", 16)
    monkeypatch.setattr(decode_attention, "TILE", 8)
    monkeypatch.setattr(decode_attention, "BATCH_TILE", 8)
    monkeypatch.setattr(decode_attention, "PROGRAMS", 4)
    monkeypatch.setattr(decode_attention, "DOT", 8)
    yield
    forget_kernels()


def forget_kernels():
    """Block sizes are read while tracing, and kernels of a shape are traced once."""
    for kernel in (
        decode_attention.attention,
        matvec.norm_matvec,
        matvec.matvec_add,
        matvec.norm_gate_up,
    ):
        kernel.clear_cache()


@pytest.mark.parametrize(
    ("slots", "single", "qk_norm"),
    [(17, True, True), (37, True, False), (37, False, True)],
)
@pytest.mark.parametrize("rows", [1, 3])
def test_layers_match_the_plain_stack(small_blocks, monkeypatch, slots, single, qk_norm, rows):
    """Float32, from an empty cache to the last slot and a full one, rows at other positions."""
    monkeypatch.setattr(decode_attention, "SINGLE_PROGRAM_SLOTS", 64 if single else 0)
    model = random_model(config(qk_norm=qk_norm, layers=1), jnp.float32)
    x = jax.random.normal(jax.random.key(3), (rows, 1, model.config.width))
    fused, plain = steps(model, monkeypatch)
    cases = [0, 1, 4, 13, slots - 1, slots]
    for i in range(len(cases)):
        state = filled_state(model, slots, (cases[i:] + cases)[:rows], jnp.float32)
        with jax.default_matmul_precision("highest"):
            expected, after = plain(x, state)
            got, new = fused(x, state)
        largest = float(jnp.abs(expected).max())
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * largest)
        for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(after), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("rows", [1, 2])
def test_bfloat16_is_no_further_from_float32_than_the_plain_stack(small_blocks, monkeypatch, rows):
    model = random_model(config(init_std=0.15), jnp.bfloat16)
    graph, params = nnx.split(model)
    exact = nnx.merge(graph, jax.tree.map(lambda t: t.astype(jnp.float32), params))
    state = filled_state(model, 21, [13, 5][:rows], jnp.bfloat16)
    x = jax.random.normal(jax.random.key(3), (rows, 1, 48)).astype(jnp.bfloat16)
    fused, plain = steps(model, monkeypatch)
    got, after = fused(x, state)
    rough, _ = plain(x, state)
    wide_state = state._replace(layers=jax.tree.map(lambda t: t.astype(jnp.float32), state.layers))
    with jax.default_matmul_precision("highest"):
        truth, _ = jax.jit(lambda x: exact.step(x, wide_state))(x.astype(jnp.float32))

    def error(y):
        return float(jnp.linalg.norm(y.astype(jnp.float32) - truth) / jnp.linalg.norm(truth))

    assert got.dtype == jnp.bfloat16 and after.layers[0].keys.dtype == jnp.bfloat16
    assert error(got) < max(1.5 * error(rough), 0.01)


def test_one_of_many_matrices_and_no_norm(small_blocks):
    x, scale = jax.random.normal(jax.random.key(0), (2, 48))
    w = jax.random.normal(jax.random.key(1), (3, 24, 48))
    by_kernel = {"backend": "interpret"}
    got = matvec.norm_matvec(x[None], scale, w, EPS, codebook=jnp.int32(2), **by_kernel)
    want = matvec.plain_norm_matvec(x[None], scale, w, EPS, 2)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    norm = RMSNorm(48, EPS, rngs=nnx.Rngs(0))
    norm.scale[...] = scale
    np.testing.assert_allclose(got[0], w[2] @ norm(x), rtol=1e-4, atol=1e-4)
    got = matvec.norm_matvec(x[None], None, w[0], EPS, **by_kernel)
    np.testing.assert_allclose(got[0], w[0] @ x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["int8", "fp8", "int4"])
def test_quantised_weights_are_scaled_by_row_or_group(small_blocks, kind):
    x, scale = jax.random.normal(jax.random.key(0), (2, 48))
    w = quantize(jax.random.normal(jax.random.key(1), (2, 24, 48)), 1, kind)
    real, x = dense(w), x[None]
    close = {"rtol": 1e-5, "atol": 1e-5}
    by_kernel, plain = {"backend": "interpret"}, {"backend": "plain"}
    for options in (by_kernel, plain):
        got = matvec.norm_gate_up(x, scale, w, EPS, **options)
        want = matvec.plain_norm_gate_up(x, scale, real, EPS)
        np.testing.assert_allclose(got, want, **close)
        got = matvec.norm_matvec(x, scale, w, EPS, codebook=jnp.int32(1), **options)
        np.testing.assert_allclose(got, matvec.plain_norm_matvec(x, scale, real[1], EPS), **close)
        got = matvec.matvec_add(x, w[0], jnp.ones((1, 24)), **options)
        want = matvec.plain_matvec_add(x, real[0], jnp.ones((1, 24)))
        np.testing.assert_allclose(got, want, **close)


def sampler(rows, temperature, top_k, do_sample=True):
    return SamplerParams(*(jnp.full((rows,), v) for v in (do_sample, temperature, top_k, 1.0)))


def awkward_logits(vocab, kind):
    logits = 3 * jax.random.normal(jax.random.key(vocab), (vocab,))
    if kind == "ties":
        return jnp.round(logits)
    if kind == "zeros":
        return jnp.where(jnp.arange(vocab) % 2, 0.0, -0.0)
    if kind == "blocked":
        return jnp.where(jnp.arange(vocab) % 5 == 0, logits, -jnp.inf)
    return logits - 20 if kind == "negative" else logits


draw = jax.jit(lambda *args: select(*args, interpret=True))


@pytest.mark.parametrize("kind", ["normal", "negative", "ties", "zeros", "blocked"])
@pytest.mark.parametrize("vocab", [32, 77])
def test_select_keeps_the_same_values_as_the_sort(vocab, kind):
    """Noise that lifts one id over all others finds out whether that id was kept."""
    logits = jnp.tile(awkward_logits(vocab, kind), (vocab, 1))
    for top_k in (1, 5, vocab - 1, vocab, 2**31 - 1):
        s = sampler(vocab, 0.7, top_k)
        kept = filter_logits(logits, s, HeadSampling(True, False))[0] > -jnp.inf
        ids = draw(logits, 1e4 * jnp.eye(vocab), s.temperature, s.top_k, s.do_sample)
        np.testing.assert_array_equal(ids == jnp.arange(vocab), kept, err_msg=f"k = {top_k}")


@pytest.mark.parametrize("partial", [True, False], ids=["partial", "sort"])
def test_select_draws_what_choose_draws(partial):
    """Rows of one batch with settings of their own."""
    logits = 3 * jax.random.normal(jax.random.key(0), (16, 77))
    noise = gumbel_noise(jax.random.split(jax.random.key(1), 16), 77)
    rows = SamplerParams(
        jnp.arange(16) % 3 != 0,
        jnp.linspace(0.7, 1.3, 16),
        jnp.asarray([5, 50] * 8, jnp.int32),
        jnp.ones(16),
    )
    want = sample(logits, noise, rows, HeadSampling(True, partial))
    got = draw(logits, noise, rows.temperature, rows.top_k, rows.do_sample)
    np.testing.assert_array_equal(got, want)


def test_greedy_select_takes_the_first_of_equals():
    logits = jnp.zeros((1, 40)).at[0, jnp.array([7, 9])].set(2.0)
    noise = jnp.full((1, 40), jnp.nan)
    s = sampler(1, 1.0, 5, False)
    got = draw(logits, noise, s.temperature, s.top_k, s.do_sample)
    assert int(got[0]) == 7 and got.dtype == jnp.int32


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
    """How many kernels of ours the program for an NVIDIA GPU has."""
    try:
        with on_h100():
            text = jax.jit(f).trace(*args).lower(lowering_platforms=("cuda",)).as_text()
    except RuntimeError as error:
        if "No supported GPU" in str(error):
            pytest.skip("this JAX lowers for a GPU only where there is one")
        raise
    return text.count("stablehlo.custom_call")


def array(*shape, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize(("width", "ffn"), [(1024, 3072), (2048, 6144)], ids=["0.6B", "1.7B"])
@pytest.mark.parametrize(
    ("rows", "slots", "count"),
    [(1, 17, 5), (1, 256, 5), (1, 8192, 6), (8, 256, 1), (8, 1024, 2), (64, 17, 1), (64, 1024, 1)],
)
@pytest.mark.parametrize("weights", ["full", "int8"])
def test_a_layer_of_real_size_lowers_for_cuda(
    monkeypatch, width, ffn, rows, slots, count, dtype, weights
):
    monkeypatch.setattr(dispatch, "override", "triton")
    c = config(
        width=width, layers=1, heads=16, kv_heads=8, head_dim=128, ffn_width=ffn, init_std=0.02
    )
    model = nnx.eval_shape(lambda: Transformer(c, rngs=nnx.Rngs(0)))
    graph, params = nnx.split(model)
    params = jax.tree.map(lambda t: array(*t.shape, dtype=dtype), nnx.to_pure_dict(params))
    if weights == "int8":
        layer = params["layers"][0]
        names = ("attention", "qkv"), ("attention", "out"), ("ffn", "gate_up"), ("ffn", "down")
        for (part, name), columns in zip(names, (1, 3, 1, 1), strict=True):
            kernel = layer[part][name]["kernel"]
            layer[part][name]["kernel"] = jax.eval_shape(
                lambda w, columns=columns: quantize(w, columns, "int8"), kernel
            )
    state = jax.eval_shape(lambda: nnx.merge(graph, params).init_state(rows, dtype, slots))

    def step(params, x, state):
        return nnx.merge(graph, params).step_blocks(x, state)

    assert lowers(step, params, array(rows, 1, width, dtype=dtype), state) == count


def test_kernels_are_lowered_once_for_all_layers(monkeypatch):
    monkeypatch.setattr(dispatch, "override", "triton")

    def kernels_of(layers):
        c = config(layers=layers)
        model = nnx.eval_shape(lambda: Transformer(c, rngs=nnx.Rngs(0)))
        graph, params = nnx.split(model)
        state = jax.eval_shape(lambda: nnx.merge(graph, params).init_state(1, jnp.float32, 17))

        def step(params, x, state):
            return nnx.merge(graph, params).step_blocks(x, state)

        return lowers(step, params, array(1, 1, c.width, dtype=jnp.float32), state)

    assert kernels_of(3) == kernels_of(1) == 5


@pytest.mark.parametrize("vocab", [2048, 3072])
def test_sampling_and_heads_lower_for_cuda(vocab):
    values = array(8, vocab, dtype=jnp.float32)
    settings = [array(8, dtype=t) for t in (jnp.float32, jnp.int32, jnp.bool_)]
    assert lowers(select, values, values, *settings) == 1

    def head(x, scale, w, codebook):
        return matvec.norm_matvec(x, scale, w, EPS, codebook=codebook, backend="triton")

    args = array(1, 1024), array(1024), array(15, vocab, 1024), array(dtype=jnp.int32)
    assert lowers(head, *args) == 1
