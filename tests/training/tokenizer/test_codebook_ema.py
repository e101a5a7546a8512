"""Learning of codebooks against loops in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.layers.rvq import divide
from qtts_jax.training.tokenizer.codebook_ema import (
    active_books,
    empty,
    kmeans,
    learn,
    perplexity,
    quantize,
    straight_through,
    used,
)
from qtts_jax.training.tokenizer.config import CodebookTraining

Q, V, D = 3, 6, 4
NEVER = CodebookTraining(dead=0.0)
read = jax.jit(quantize)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def vectors(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def started(seed=1):
    """Books that need no k-means."""
    draw = np.random.default_rng(seed)
    usage = draw.uniform(1, 3, (Q, V)).astype(np.float32)
    entries = draw.standard_normal((Q, V, D)).astype(np.float32)
    filled = {"embed_sum": entries * usage[..., None], "usage": usage}
    none = jax.device_get(empty(Q, V, D))
    return none | filled | {"initialized": np.ones((Q, 1), np.float32)}


@pytest.fixture(scope="module")
def learn_jit():
    def call(books, x, key, settings=NEVER, accumulate=1, last=True):
        return jax.device_get(compiled(books, x, key, settings, accumulate, jnp.asarray(last)))

    compiled = jax.jit(
        lambda books, x, key, settings, accumulate, last: learn(
            books, x, key, settings, accumulate=accumulate, last=last
        ),
        static_argnums=(3, 4),
    )
    return call


def test_books_that_are_known_to_be_filled_learn_the_same(learn_jit, rng):
    books, x, key = started(), vectors(rng, 2, 9, D), jax.random.key(0)
    known = jax.jit(
        lambda b, x, k: learn(
            b, x, k, NEVER, accumulate=1, last=jnp.asarray(True), initialized=True
        )
    )
    conditional = learn_jit(books, x, key)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), conditional, known(books, x, key)
    )


def test_moving_averages_are_those_of_a_loop(learn_jit, rng):
    books, x = started(), vectors(rng, 2, 9, D)
    quantized, after, revived = learn_jit(books, x, jax.random.key(0))
    residual = np.asarray(x).reshape(-1, D).astype(np.float64)
    for q in range(Q):
        entries = np.asarray(books["embed_sum"][q] / books["usage"][q][:, None], np.float64)
        usage, sums = 0.99 * np.asarray(books["usage"][q]), 0.99 * np.asarray(books["embed_sum"][q])
        for n in range(len(residual)):
            code = np.argmin(np.linalg.norm(entries - residual[n], axis=1))
            assert quantized.codes.reshape(-1, Q)[n, q] == code
            np.testing.assert_allclose(
                quantized.residuals.reshape(-1, Q, D)[n, q], residual[n], atol=1e-5
            )
            usage[code] += 0.01
            sums[code] += 0.01 * residual[n]
            residual[n] -= entries[code]
        np.testing.assert_allclose(after["usage"][q], usage, rtol=1e-5)
        np.testing.assert_allclose(after["embed_sum"][q], sums, rtol=1e-5, atol=1e-6)
    assert revived == 0


def test_microbatches_learn_what_one_batch_learns(learn_jit, rng):
    books, x, key = started(), vectors(rng, 4, 5, D), jax.random.key(0)
    whole = learn_jit(books, x, key)[1]
    half = learn_jit(books, x[:2], key, accumulate=2, last=False)[1]
    np.testing.assert_array_equal(half["embed_sum"], books["embed_sum"])
    both = learn_jit(half, x[2:], key, accumulate=2)[1]
    for name in whole:
        np.testing.assert_allclose(both[name], whole[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert not np.any(both["new_usage"])


def test_learning_and_reading_give_the_same_codes(learn_jit, rng):
    books, x = started(), vectors(rng, 2, 7, D)
    np.testing.assert_array_equal(
        learn_jit(books, x, jax.random.key(0))[0].codes, read(books, x).codes
    )


def test_dead_entry_becomes_a_vector_of_the_batch(learn_jit, rng):
    books, x = started(), vectors(rng, 2, 9, D)
    books["usage"][0, 2], books["embed_sum"][0, 2] = 1e-3, 1.0  # an entry far outside
    assert not np.any(read(books, x).codes[..., 0] == 2)
    _, after, revived = learn_jit(books, x, jax.random.key(0), CodebookTraining(dead=0.1))
    assert revived == 1
    entry = divide(after["embed_sum"], after["usage"])[0, 2]
    assert np.abs(np.asarray(x).reshape(-1, D) - np.asarray(entry)).max(axis=1).min() < 1e-5
    others = np.delete(np.asarray(after["usage"][0]), 2)
    assert others.min() < after["usage"][0, 2] < others.max()
    assert np.any(read(after, x).codes[..., 0] == 2)


def test_first_batch_fills_the_books(learn_jit, rng):
    x = vectors(rng, 4, 30, D)
    quantized, after, _ = learn_jit(empty(Q, V, D), x, jax.random.key(0))
    assert np.all(np.asarray(after["initialized"]) == 1)
    # Every book takes its share of the energy, from the first batch on.
    left = [np.mean(np.square(quantized.residuals[:, :, q])) for q in range(Q)]
    assert left[0] > 1.3 * left[1] > 1.3 * 1.2 * left[2]
    np.testing.assert_allclose(after["usage"].sum(-1), 120, rtol=0.02)


def test_small_first_batch_leaves_work_for_every_book(learn_jit, rng):
    x = vectors(rng, 2, 6, D)  # two vectors an entry: as many entries would leave little
    settings = CodebookTraining(dead=0.1)
    quantized, after, revived = learn_jit(empty(Q, V, D), x, jax.random.key(0), settings)
    left = [np.mean(np.square(quantized.residuals[:, :, q])) for q in range(Q)]
    assert left[2] > 0.1 * left[0]
    assert revived >= Q * (V - 12 // 4)
    # All entries are now vectors of the batch, none a duplicate.
    assert np.all(after["usage"] > 0.05)
    for book in divide(after["embed_sum"], after["usage"]):
        assert len(np.unique(np.round(book, 5), axis=0)) > V // 2


def test_books_are_filled_once(learn_jit, rng):
    x = vectors(rng, 4, 30, D)
    first = learn_jit(empty(Q, V, D), x, jax.random.key(0))[1]
    moved = learn_jit(first, x + 100, jax.random.key(1))[1]
    entries, before = (divide(b["embed_sum"], b["usage"]) for b in (moved, first))
    # Filled again they would be near 100; the average of one step moves them by a part of that.
    assert np.abs(np.asarray(entries - before)[0]).max() < 50


def test_kmeans_finds_separate_clusters(rng):
    middles = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)
    x = np.repeat(middles, 25, axis=0) + 0.1 * rng.standard_normal((100, 2)).astype(np.float32)
    best = np.inf
    for seed in range(5):  # a random start may put two centres into one cluster
        centres, counts = jax.jit(kmeans, static_argnums=(1, 3))(x, 4, jax.random.key(seed), 10)
        assert np.sum(counts) == 100
        away = np.linalg.norm(np.asarray(centres)[:, None] - middles[None], axis=-1)
        best = min(best, away.min(axis=0).max())
    assert best < 0.1


def test_kmeans_of_fewer_vectors_than_centres_keeps_them_all(rng):
    x = vectors(rng, 3, 2)
    centres, counts = jax.jit(kmeans, static_argnums=(1, 3))(x, 7, jax.random.key(0), 3)
    assert centres.shape == (7, 2)
    assert np.sum(counts) == 3
    for row in np.asarray(x):
        assert np.linalg.norm(np.asarray(centres) - row, axis=1).min() < 1e-6


def test_dropout_uses_the_first_books_of_some_rows():
    active = np.asarray(active_books(jax.random.key(0), 4000, 5, 0.5))
    shares = [np.mean(active == n) for n in range(6)]
    np.testing.assert_allclose(shares, [0, 0.1, 0.1, 0.1, 0.1, 0.6], atol=0.02)
    assert np.all(np.asarray(active_books(jax.random.key(0), 100, 5, 0.0)) == 5)


def test_gradient_passes_straight_through_what_is_in_use(rng):
    x = vectors(rng, 4, 5, D)
    quantized = jax.device_get(read(started(), x))
    active, bypass = jnp.array([3, 2, 0, 3]), jnp.array([False, False, False, True])
    entries = np.asarray(quantized.entries)
    y, pull = jax.vjp(jax.jit(lambda x: straight_through(x, quantized, active, bypass)), x)
    expected = [entries[0].sum(1), entries[1, :, :2].sum(1), np.zeros((5, D)), x[3]]
    np.testing.assert_allclose(y, np.stack(expected), atol=1e-6)
    gradient = pull(jnp.ones_like(y))[0]
    np.testing.assert_array_equal(gradient, np.ones((4, 5, D)) * [[[1]], [[1]], [[0]], [[1]]])


def test_perplexity_counts_equally_used_entries():
    usage = jnp.array([[1.0, 1, 1, 1], [5, 5, 0, 0], [7, 0, 0, 0]])
    np.testing.assert_allclose(perplexity(usage), [4, 2, 1], rtol=1e-5)
    np.testing.assert_allclose(used(usage, 0.1), [1, 0.5, 0.25])


def test_padding_gets_codes_but_is_not_learnt(rng):
    x, real = vectors(rng, 2, 9, D), np.ones((2, 9), bool)
    real[1, 4:] = False
    padded = x.copy()
    padded[1, 4:] = 1e3
    settings = CodebookTraining(dead=0.5, start_iterations=3)
    books = jax.device_get(empty(Q, V, D))

    def run(x):
        return learn(
            books, x, jax.random.key(3), settings, accumulate=1, last=True, real=jnp.asarray(real)
        )

    found, other = (jax.device_get(jax.jit(run)(each)) for each in (x, padded))
    np.testing.assert_array_equal(found[1]["embed_sum"], other[1]["embed_sum"])
    assert np.abs(divide(found[1]["embed_sum"], found[1]["usage"])).max() < 10
    np.testing.assert_array_equal(found[0].codes[real], other[0].codes[real])


def test_only_real_vectors_are_counted(rng):
    x, real = vectors(rng, 2, 9, D), jnp.arange(9) < jnp.array([9, 4])[:, None]
    settings = CodebookTraining(dead=0.0, decay=0.0)
    after = learn(started(), x, jax.random.key(0), settings, accumulate=1, last=True, real=real)[1]
    np.testing.assert_allclose(np.sum(after["usage"], axis=1), 13, rtol=1e-6)
