"""The persistent CUDA kernels against the plain definitions, on a Hopper GPU.

pytest -m by_hand tests/models/test_persistent_kernels.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.presets import tts_12hz
from qtts_jax.functional import abstract, bind, cast
from qtts_jax.generation.sampling import NOT_FINITE
from qtts_jax.layers import dispatch
from qtts_jax.layers.attention import KeyValues
from qtts_jax.models import code_predictor_kernel, talker_kernel
from qtts_jax.models.code_predictor import CodePredictor
from qtts_jax.modules import transformer_stream
from qtts_jax.modules.transformer import Transformer, TransformerState

pytestmark = [
    pytest.mark.by_hand,
    pytest.mark.skipif(not dispatch.persistent_kernels(), reason="needs a Hopper GPU"),
]
BF16, F32 = jnp.bfloat16, jnp.float32
# Roundings to bfloat16 (2 ** -9 each) through 5 layers; a wrong weight gives errors above 0.1.
ERROR, WRONG = 1.5e-2, 0.1


@jax.jit
def halved(x):
    return x.astype(BF16)


def random(module, config):
    """Structure and random bfloat16 parameters of the size of trained ones."""
    graph, shapes = abstract(module, config)
    leaves, tree = jax.tree.flatten(shapes)
    made = []
    for i, leaf in enumerate(leaves):
        x = jax.random.normal(jax.random.key(i), leaf.shape)
        made.append(halved(1 + 0.1 * x if len(leaf.shape) == 1 else 0.03 * x))
    return graph, jax.tree.unflatten(tree, made)


def difference(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def assert_as_exact(found, rounded, exact):
    """`found` is as near to float32 results as what XLA makes of the same bfloat16 weights."""
    by_xla = difference(rounded, exact)
    assert by_xla < WRONG
    assert difference(found, exact) < 1.25 * by_xla


class Predictor:
    """A code predictor of released size, its kernel and its inputs."""

    def __init__(self):
        self.config = tts_12hz("0b6", "base").talker.code_predictor
        width = self.config.transformer.width

        def module(c, rngs):
            return CodePredictor(c, width, rngs=rngs)

        self.graph, self.params = random(module, self.config)
        self.streamed = code_predictor_kernel.with_stream(self.config, self.params)
        self.inputs = halved(jax.random.normal(jax.random.key(50), (2, width)))
        self.noise = jax.random.gumbel(jax.random.key(51), (15, 2048))
        self.run = jax.jit(self._run)

    def _run(self, inputs, noise, draw):
        stream, tables = self.streamed["heads"].stream, self.streamed["embeddings"]
        return code_predictor_kernel.generate(stream, tables, inputs, noise, draw, self.config)

    def draw(self, top_k=50, do_sample=True):
        return code_predictor_kernel.Draw(
            jnp.full((1,), 0.9), jnp.full((1,), top_k, jnp.int32), jnp.full((1,), do_sample)
        )


@pytest.fixture(scope="module")
def predictor():
    return Predictor()


def test_predictor_logits(predictor):
    codes, logits = predictor.run(predictor.inputs, predictor.noise, predictor.draw())
    model = bind(predictor.graph, cast(predictor.params, F32))
    hidden, first = predictor.inputs.astype(F32)[:, None]
    with jax.default_matmul_precision("highest"):
        plain = jax.jit(model.teacher_forced)(hidden, first, codes[None])[0]
    for of_kernel, of_plain in zip(logits, plain, strict=True):
        assert difference(of_kernel, of_plain) < ERROR


@pytest.mark.parametrize("top_k", [1, 50, 2048])
def test_predictor_draws_from_its_logits(predictor, top_k):
    codes, logits = predictor.run(predictor.inputs, predictor.noise, predictor.draw(top_k))
    scaled = np.asarray(logits) / np.float32(0.9)
    kth = np.sort(scaled, axis=1)[:, -top_k, None]
    best = np.argmax(np.where(scaled < kth, -np.inf, scaled) + predictor.noise, axis=1)
    np.testing.assert_array_equal(codes, best)


def test_predictor_greedy_and_not_finite(predictor):
    codes, logits = predictor.run(
        predictor.inputs, predictor.noise, predictor.draw(do_sample=False)
    )
    np.testing.assert_array_equal(codes, np.argmax(logits, axis=1))
    codes, _ = predictor.run(predictor.inputs * jnp.nan, predictor.noise, predictor.draw())
    np.testing.assert_array_equal(codes, np.full(15, NOT_FINITE))


def test_predictor_repeats(predictor):
    arguments = predictor.inputs, predictor.noise, predictor.draw()
    _, first = predictor.run(*arguments)
    different = sum((predictor.run(*arguments)[1] != first).any() for _ in range(2000))
    assert different == 0


@pytest.mark.parametrize("size", ["0b6", "1b7"])
def test_talker(size):
    c = tts_12hz(size, "base").talker.transformer
    graph, params = random(Transformer, c)
    assert transformer_stream.supports(c, params)
    stream = transformer_stream.stream(c, params)
    step = jax.jit(lambda stream, x, state: talker_kernel.step(c, stream, x, state))

    @jax.jit
    def plain(params, x, state):
        wide = jax.tree.map(lambda x: x.astype(F32) if x.dtype == BF16 else x, (params, state))
        with jax.default_matmul_precision("highest"):
            return bind(graph, wide[0]).step_blocks(x.astype(F32)[:, None], wide[1])

    @jax.jit
    def rounded(params, x, state):
        return bind(graph, params).step_blocks(x[:, None], state)

    for slots, position in ((64, 0), (1024, 37), (1024, 1024), (4096, 3001)):
        keys = jax.random.split(jax.random.key(position), 2 * c.layers + 1)
        shape = (1, slots, c.kv_heads, c.head_dim)
        caches = [halved(jax.random.normal(key, shape)) for key in keys[1:]]
        layers = tuple(KeyValues(*caches[i : i + 2]) for i in range(0, len(caches), 2))
        state = TransformerState(layers, jnp.full((1,), position, jnp.int32))
        x = halved(jax.random.normal(keys[0], (1, c.width)))
        y, after = step(stream, x, state)
        expected, plain_after = plain(params, x, state)
        by_xla, xla_after = rounded(params, x, state)
        assert_as_exact(y, by_xla[:, 0], expected[:, 0])
        assert int(after.position[0]) == position + 1
        written = min(position, slots - 1)
        rest = np.arange(slots) != written
        caches = (after.layers, layers, xla_after.layers, plain_after.layers)
        for found, before, by_xla, wanted in zip(*map(jax.tree.leaves, caches), strict=True):
            np.testing.assert_array_equal(found[0, rest], before[0, rest])
            assert_as_exact(*(x[0, written] for x in (found, by_xla, wanted)))
        repeated = step(stream, x, state)[0]
        np.testing.assert_array_equal(y, repeated)
