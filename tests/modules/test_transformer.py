"""The transformer stack in a stream, with a window and with a cache of every position."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qtts_jax.configs.tts import TransformerConfig
from qtts_jax.layers import dispatch
from qtts_jax.modules.transformer import Transformer
from tests.support.contract import verify_streaming

CONFIG = TransformerConfig(
    width=12,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=6,
    ffn_width=20,
    norm_eps=1e-6,
    rope_theta=100.0,
    max_positions=64,
    init_std=0.3,
)
KINDS = {
    "qwen3": {"qk_norm": True},
    "codec": {"layer_scale": 0.4},
    "mimi": {"norm": "layer", "ffn": "gelu", "layer_scale": 0.4},
}


def make(window, kind="qwen3", **options):
    c = dataclasses.replace(CONFIG, window=window, **KINDS[kind])
    return Transformer(c, **options, rngs=nnx.Rngs(0))


def inputs(steps, batch=3):
    return np.random.default_rng(0).standard_normal((batch, steps, 12)).astype(np.float32)


@pytest.mark.parametrize(
    ("window", "kind"),
    [
        (None, "qwen3"),
        (1, "qwen3"),
        (4, "codec"),
        (4, "mimi"),
        pytest.param(None, "mimi", marks=pytest.mark.slow),
    ],
)
def test_transformer_streams(window, kind):
    model = make(window, kind, final_norm=kind != "mimi")
    init = None
    if window is None:
        init = lambda batch, dtype: model.init_state(batch, dtype, 12)  # noqa: E731
    # Each of the two layers looks window - 1 positions back.
    field = None if window is None else 1 + 2 * (window - 1)
    verify_streaming(model, inputs(12), init_state=init, takes_lengths=True, receptive_field=field)


def test_window_bounds_what_a_query_sees():
    x = inputs(14)
    other = x.copy()
    other[:, 0] += 1.0
    # Each of the two layers looks three positions back.
    model = make(4)
    a, b = (np.asarray(jax.jit(model)(jnp.asarray(t))) for t in (x, other))
    np.testing.assert_array_equal(a[:, 7:], b[:, 7:])
    assert (a[:, 6] != b[:, 6]).any()
    model = make(None)
    a, b = (np.asarray(jax.jit(model)(jnp.asarray(t))) for t in (x, other))
    assert (a[:, 13] != b[:, 13]).any()


def test_a_window_as_wide_as_the_input_is_full_attention():
    x = jnp.asarray(inputs(9))
    np.testing.assert_allclose(make(9)(x), make(None)(x), atol=1e-5)


@pytest.mark.parametrize("window", [None, 4])
def test_rows_at_different_positions_share_a_step(window):
    model, x = make(window), jnp.asarray(inputs(9, batch=2))
    capacity = 16 if window is None else None
    step = jax.jit(model.step)
    whole, _ = step(x, model.init_state(2, jnp.float32, capacity))
    states = []
    for row, seen in enumerate((5, 2)):
        alone = x[row : row + 1]
        states.append(step(alone[:, :seen], model.init_state(1, jnp.float32, capacity))[1])
    joined = jax.tree.map(lambda *rows: jnp.concatenate(rows), *states)
    new = jnp.stack([x[0, 5:8], x[1, 2:5]])
    y, state = step(new, joined)
    assert state.position.tolist() == [8, 5]
    np.testing.assert_allclose(y[0], whole[0, 5:8], atol=1e-5)
    np.testing.assert_allclose(y[1], whole[1, 2:5], atol=1e-5)


def test_full_attention_without_a_capacity_is_refused():
    with pytest.raises(AssertionError, match="capacity"):
        make(None).init_state(1, jnp.float32)


def test_the_forms_of_a_tpu_stream_as_the_plain_ones(monkeypatch):
    """Rows at positions of their own, one position at a time, after a prompt."""
    model, x = make(None), inputs(9)

    def stream():
        state = model.init_state(3, jnp.float32, 12)
        _, state = model.step(x[:, :5], state, jnp.array([5, 2, 4]))
        outputs = []
        for t in range(5, 9):
            y, state = model.step(x[:, t : t + 1], state)
            outputs.append(y)
        return jnp.concatenate(outputs, axis=1), state

    with jax.default_matmul_precision("highest"):
        plain, plain_state = stream()
        monkeypatch.setattr(
            dispatch, "cache_write", lambda time, *_: "interpret" if time == 1 else "plain"
        )
        monkeypatch.setattr(dispatch, "heads_in_one_product", lambda *sizes: True)
        monkeypatch.setattr(dispatch, "heads_by_products", lambda *sizes: True)
        found, state = stream()
    np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(plain_state), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
