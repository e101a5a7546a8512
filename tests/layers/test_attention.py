"""Attention against a numpy version that walks over every query."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qtts_jax.configs.tts import TransformerConfig
from qtts_jax.layers import dispatch
from qtts_jax.layers.attention import (
    Attention,
    KeyValues,
    attend,
    attend_together,
    attention_context,
    write,
    write_both,
)
from qtts_jax.layers.norm import rms_norm, rms_norm_by_product
from qtts_jax.layers.rope import (
    apply_rope,
    apply_rope_by_product,
    inverse_frequencies,
    rope_angles,
)


def config(**changes):
    sizes = {
        "width": 12,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 6,
        "ffn_width": 20,
        "norm_eps": 1e-6,
        "rope_theta": 100.0,
        "max_positions": 64,
        "init_std": 0.5,
    }
    return TransformerConfig(**(sizes | changes))


def turn(x, position, theta):
    """Rotate pairs (i, i + h/2) of x [..., h] by position * theta^(-2i/h)."""
    half = x.shape[-1] // 2
    angle = position * theta ** (-2 * np.arange(half) / x.shape[-1])
    a, b = x[..., :half], x[..., half:]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def reference(layer, x):
    """Causal attention over x [T, D], query by query, head by head."""
    c = layer.config
    kernel = np.asarray(layer.qkv.kernel[...], np.float64)  # [K, G+2, h, D]
    out = np.asarray(layer.out.kernel[...], np.float64)  # [D, K, G, h]
    group = c.heads // c.kv_heads
    y = np.zeros_like(x, dtype=np.float64)
    for t in range(len(x)):
        first = 0 if c.window is None else max(0, t - c.window + 1)
        for k in range(c.kv_heads):
            keys = [turn(kernel[k, group] @ x[s], s, c.rope_theta) for s in range(first, t + 1)]
            values = [kernel[k, group + 1] @ x[s] for s in range(first, t + 1)]
            for g in range(group):
                query = turn(kernel[k, g] @ x[t], t, c.rope_theta)
                scores = np.array([query @ key for key in keys]) / np.sqrt(c.head_dim)
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                y[t] += out[:, k, g] @ sum(w * v for w, v in zip(weights, values, strict=True))
    return y


@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_is_its_definition(window, kv_heads):
    c = config(window=window, kv_heads=kv_heads)
    layer = Attention(c, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((2, 7, 12)).astype(np.float32)
    slots = 7 if window is None else window - 1
    context = attention_context(c, jnp.zeros((2,), jnp.int32), 7, slots, None)
    with jax.default_matmul_precision("highest"):
        y, _ = layer.step(jnp.asarray(x), layer.init_state(2, jnp.float32, slots), context)
    for row in range(2):
        expected = reference(layer, x[row].astype(np.float64))
        np.testing.assert_allclose(y[row], expected, atol=1e-4 * np.abs(expected).max())


def test_masked_keys_have_no_weight():
    rng = np.random.default_rng(1)
    q = jnp.asarray(rng.standard_normal((1, 2, 1, 3, 4)), jnp.float32)
    k, v = (jnp.asarray(rng.standard_normal((1, 5, 1, 4)), jnp.float32) for _ in range(2))
    mask = np.zeros((1, 2, 5), bool)
    mask[:, 0, :2] = mask[:, 1, 3:] = True
    y = attend(q, k, v, jnp.asarray(mask))
    for t, seen in ((0, slice(0, 2)), (1, slice(3, 5))):
        alone = attend(q[:, t : t + 1], k[:, seen], v[:, seen], jnp.ones((1, 1, 2), bool))
        np.testing.assert_allclose(y[:, t : t + 1], alone, atol=1e-6)


def test_scores_of_narrow_types_are_float32():
    # Equal keys: the mean of the values. In bfloat16 scores 300 and 301 would be one.
    q = jnp.full((1, 1, 1, 1, 4), 20.0, jnp.bfloat16)
    k = jnp.asarray(np.array([30.0, 30.125])[None, :, None, None] * np.ones((1, 2, 1, 4)))
    v = jnp.asarray(np.array([0.0, 1.0])[None, :, None, None] * np.ones((1, 2, 1, 4)))
    y = attend(q, *(t.astype(jnp.bfloat16) for t in (k, v)), jnp.ones((1, 1, 2), bool))
    expected = 1 / (1 + np.exp(-20.0 * 4 * 0.125 / 2))
    np.testing.assert_allclose(np.asarray(y, np.float32).ravel(), expected, atol=4e-3)


def test_write_puts_each_row_at_its_own_position():
    cache = jnp.zeros((2, 5, 1, 1))
    new = jnp.ones((2, 2, 1, 1))
    written = write(cache, new, jnp.array([0, 3]))
    assert written[..., 0, 0].tolist() == [[1, 1, 0, 0, 0], [0, 0, 0, 1, 1]]


def test_rows_that_share_a_position_are_written_as_rows_that_each_have_it():
    rng = np.random.default_rng(3)
    cache, new = (jnp.asarray(rng.standard_normal((3, n, 2, 4))) for n in (6, 2))
    shared = jax.jit(write)
    np.testing.assert_array_equal(
        shared(cache, new, jnp.array([3])), write(cache, new, jnp.array([3, 3, 3]))
    )
    assert "scatter" not in str(jax.make_jaxpr(write)(cache, new, jnp.array([3])))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_kernel_writes_what_a_slice_writes_and_nothing_beyond_a_cache(monkeypatch, dtype):
    rng = np.random.default_rng(4)
    keys, values = (jnp.asarray(rng.standard_normal((4, 5, 2, 8)), dtype) for _ in range(2))
    k, v = (jnp.asarray(rng.standard_normal((4, 1, 2, 8)), jnp.float32) for _ in range(2))
    position = jnp.array([0, 4, 2, 5])
    monkeypatch.setattr(dispatch, "cache_write", lambda *sizes: "interpret")
    written = jax.jit(write_both)(KeyValues(keys, values), k, v, position)
    for cache, before, new in zip(written, (keys, values), (k, v), strict=True):
        expected = np.array(before)
        for row, slot in enumerate(position[:3]):
            expected[row, slot] = np.asarray(new.astype(dtype))[row, 0]
        np.testing.assert_array_equal(cache, expected)


@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.parametrize("masks", [1, 3])
def test_all_heads_in_one_product_attend_as_each_by_itself(time, masks):
    rng = np.random.default_rng(5)
    q = jnp.asarray(rng.standard_normal((3, time, 4, 2, 8)), jnp.float32)
    k, v = (jnp.asarray(rng.standard_normal((3, 7, 4, 8)), jnp.float32) for _ in range(2))
    mask = rng.random((masks, time, 7)) < 0.5
    mask[..., 2] = True
    with jax.default_matmul_precision("highest"):
        together, each = (f(q, k, v, jnp.asarray(mask)) for f in (attend_together, attend))
    np.testing.assert_allclose(together, each, rtol=1e-5, atol=1e-6)


def test_rotation_by_a_product_has_the_same_bits():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 16), jnp.bfloat16)
    rope = rope_angles(jnp.array([[0, 7, 5000], [3, 1, 2]]), 16, 100.0)
    np.testing.assert_array_equal(apply_rope_by_product(x, rope), apply_rope(x, rope))


def test_norm_by_a_product_is_the_norm():
    x = 7 * jax.random.normal(jax.random.key(0), (3, 1, 2, 128), jnp.float32)
    scale = jax.random.normal(jax.random.key(1), (128,))
    by_product, plain = (f(x, scale, 1e-6) for f in (rms_norm_by_product, rms_norm))
    np.testing.assert_allclose(by_product, plain, rtol=2e-6)


def test_squares_of_bfloat16_are_sums_of_two_bfloat16():
    """So `HIGH`, a product in parts of bfloat16, loses nothing of a sum of squares."""
    x = np.asarray(jnp.arange(128, 256) / 128, np.float32)  # every bfloat16 from 1 to 2
    high = np.asarray(jnp.asarray(x * x, jnp.bfloat16), np.float32)
    low = np.asarray(jnp.asarray(x * x - high, jnp.bfloat16), np.float32)
    np.testing.assert_array_equal(high + low, x * x)


def test_what_tpus_choose_for_a_frame(monkeypatch):
    assert dispatch.cache_write(1, 8, 128) == "plain" and not dispatch.heads_in_one_product(1, 1)
    assert not dispatch.heads_by_products(1, jnp.bfloat16)
    assert not dispatch.caches_lengthen_after_prompt()
    monkeypatch.setattr(dispatch, "platform", lambda: "tpu")
    assert dispatch.cache_write(1, 8, 128) == "rows"
    # Two positions, and positions that are not whole tiles of memory.
    assert {dispatch.cache_write(*c) for c in ((2, 8, 128), (1, 8, 64), (1, 3, 128))} == {"select"}
    assert dispatch.cache_write(32, 8, 128) == "plain"
    assert dispatch.heads_in_one_product(1, 64 * 16 * 256 * 8)
    assert not dispatch.heads_in_one_product(1, 64 * 16 * 4096 * 8)
    assert not dispatch.heads_in_one_product(32, 1)
    assert dispatch.heads_by_products(2, jnp.bfloat16)
    assert dispatch.caches_lengthen_after_prompt()
    # A rotation by a product is exact in 16 bits only.
    assert not dispatch.heads_by_products(1, jnp.float32)
    monkeypatch.setattr(dispatch, "single_device", lambda: False)
    assert dispatch.cache_write(1, 8, 128) == "select"


def test_rotation_turns_pairs_by_position():
    x = np.random.default_rng(2).standard_normal((1, 3, 2, 6)).astype(np.float32)
    positions = np.array([[0, 4, 11]])
    y = apply_rope(jnp.asarray(x), rope_angles(jnp.asarray(positions), 6, 100.0))
    for t, position in enumerate(positions[0]):
        np.testing.assert_allclose(y[0, t], turn(x[0, t], position, 100.0), atol=1e-5)
    np.testing.assert_array_equal(y[0, 0], x[0, 0])


# The bits of 1.0 / (theta ** (arange(0, h, 2).float() / h)) in PyTorch 2.13 on x86_64: all of a
# smaller head, and of the talker's those where a power in float32 has other bits in numpy.
OFFICIAL_64 = [
    1065353216, 1061157137, 1058010522, 1054337179, 1050798235, 1047712803, 1043732615, 1040747895,
    1036831949, 1033475085, 1030116802, 1026341397, 1023510243, 1019364175, 1016180025, 1012562930,
    1008981770, 1005959600, 1001931932, 998911607, 995049016, 991652109, 988353832, 984533390,
    981668463, 977573004, 974350870, 970790693, 967166816, 964208661, 960132947, 957076594,
]  # fmt: skip
OFFICIAL_128 = {
    3: 1057355503, 18: 1017657739, 25: 999587246, 30: 986306396, 36: 970790693, 41: 957760292,
    42: 955395298, 43: 952313781, 49: 936756289, 52: 929020495, 54: 923879651, 55: 921315122,
    58: 913641584, 59: 910523307,
}  # fmt: skip


def test_frequencies_have_the_official_bits():
    assert inverse_frequencies(64, 1e4).view(np.uint32).tolist() == OFFICIAL_64
    bits = inverse_frequencies(128, 1e6).view(np.uint32)
    assert {i: int(bits[i]) for i in OFFICIAL_128} == OFFICIAL_128


@pytest.mark.parametrize(("head_dim", "theta"), [(128, 1e6), (64, 1e4)])
def test_rotation_at_far_positions_is_that_of_the_official_float32_frequencies(head_dim, theta):
    position = 8000
    turned = rope_angles(jnp.array([[position]]), head_dim, theta)
    angles = (np.float32(position) * inverse_frequencies(head_dim, theta)).astype(np.float64)
    np.testing.assert_allclose(turned.cos[0, 0], np.cos(angles), atol=1e-6)
    np.testing.assert_allclose(turned.sin[0, 0], np.sin(angles), atol=1e-6)
