"""Learning of codebooks without gradients: k-means start, moving averages, revival, dropout.

The statistics are those that a checkpoint stores: `embed_sum` and `usage`, the decayed sum and the
decayed number of the vectors that chose an entry, whose quotient is the entry (upstream
`MimiEuclideanCodebook`, `EuclideanCodebook`); no other copy of the entries exists.
"""

from __future__ import annotations

from typing import NamedTuple, TypedDict

import jax
import jax.numpy as jnp

from qtts_jax.layers.rvq import MIN_USAGE, divide, nearest
from qtts_jax.training.tokenizer.config import CodebookTraining

# k-means on a batch of fewer vectors finds fewer centres: a vector that is its own centre would
# leave nothing for the next book to learn from.
VECTORS_PER_CENTRE = 4


class Codebooks(TypedDict):
    """Statistics of the Q books of one residual quantizer, float32.

    Attributes:
        embed_sum: [Q, V, d].
        usage: [Q, V].
        initialized: [Q, 1], 1 once k-means has filled a book.
        new_sum, new_usage: of the vectors of the microbatches since the last optimizer step.
    """

    embed_sum: jax.Array
    usage: jax.Array
    initialized: jax.Array
    new_sum: jax.Array
    new_usage: jax.Array


class Quantized(NamedTuple):
    """What a residual quantizer makes of x [B, T, d].

    Attributes:
        codes: [B, T, Q] int32.
        entries: [B, T, Q, d] float32, the entry chosen in each book.
        residuals: [B, T, Q, d] float32, what each book was asked for; x passes its gradient on.
    """

    codes: jax.Array
    entries: jax.Array
    residuals: jax.Array


def empty(books: int, entries: int, width: int) -> Codebooks:
    """Books before their first vectors."""
    return Codebooks(
        embed_sum=jnp.zeros((books, entries, width)),
        usage=jnp.ones((books, entries)),
        initialized=jnp.zeros((books, 1)),
        new_sum=jnp.zeros((books, entries, width)),
        new_usage=jnp.zeros((books, entries)),
    )


def quantize(books: Codebooks, x: jax.Array) -> Quantized:
    """Nearest entry of every book to what the books before it left over (as `RVQ.encode`).

    Args:
        x: [B, T, d]; the search runs in float32.
    """

    def one(residual: jax.Array, book: Codebooks) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        rows = divide(book["embed_sum"], book["usage"])
        codes = nearest(residual, rows)
        return residual - rows[codes], (codes, rows[codes])

    x = x.astype(jnp.float32)
    codes, entries = jax.lax.scan(one, jax.lax.stop_gradient(x), books)[1]
    return _quantized(x, codes, entries)


def learn(
    books: Codebooks,
    x: jax.Array,
    key: jax.Array,
    settings: CodebookTraining,
    *,
    accumulate: int,
    last: jax.Array,
    filled: bool = False,
) -> tuple[Quantized, Codebooks, jax.Array]:
    """As `quantize`, and the books after it; codes come from the books before.

    Everything is a sum or a gather over the whole batch, so under `jax.jit` with a sharded batch
    every device gets the books of the whole batch. With accumulation the books stay as they are
    until the last microbatch, so the result is that of one large batch.

    Args:
        x: [B, T, d].
        key: for the first centres and the revival of dead entries.
        accumulate: microbatches in an optimizer step.
        last: bool scalar, whether this is the last of them.
        filled: every book is known to be filled, so that nothing has to ask.

    Returns:
        the quantization, the books, and how many entries were revived (int32).
    """

    x = x.astype(jnp.float32)
    keys = jax.random.split(key, books["usage"].shape[0])

    def run(begun: bool) -> tuple[jax.Array, jax.Array, Codebooks, jax.Array]:
        def one(
            residual: jax.Array, inputs: tuple[Codebooks, jax.Array]
        ) -> tuple[jax.Array, tuple[jax.Array, jax.Array, Codebooks, jax.Array]]:
            book, key = inputs
            first, second = jax.random.split(key)
            vectors = residual.reshape(-1, residual.shape[-1])
            if not begun:
                book = _started(book, vectors, first, settings, accumulate)
            rows = divide(book["embed_sum"], book["usage"])
            codes = nearest(residual, rows)
            after, revived = update(book, vectors, codes.reshape(-1), second, settings, last)
            return residual - rows[codes], (codes, rows[codes], after, revived)

        return jax.lax.scan(one, jax.lax.stop_gradient(x), (books, keys))[1]

    if filled:
        codes, entries, after, revived = run(True)
    else:
        # One question for all books: on a GPU the host has to wait for each.
        begun = jnp.all(books["initialized"] > 0)
        codes, entries, after, revived = jax.lax.cond(begun, lambda: run(True), lambda: run(False))
    return _quantized(x, codes, entries), after, jnp.sum(revived)


def _started(
    book: Codebooks,
    vectors: jax.Array,
    key: jax.Array,
    settings: CodebookTraining,
    accumulate: int,
) -> Codebooks:
    """One book, filled by k-means unless it is already."""
    entries = book["usage"].shape[0]
    found = max(1, min(entries, vectors.shape[0] // VECTORS_PER_CENTRE))
    centres, counts = kmeans(vectors, found, key, settings.start_iterations)
    # The rest are copies that nobody chooses, so the first update replaces them.
    centres = jnp.resize(centres, (entries, centres.shape[1]))
    # As many vectors as a whole optimizer step brings, the scale of the averages.
    counts = jnp.pad(counts * accumulate, (0, entries - found))
    counts = jnp.maximum(counts, MIN_USAGE)
    filled = {"embed_sum": centres * counts[:, None], "usage": counts}
    new = Codebooks(**(book | filled | {"initialized": jnp.ones((1,))}))  # type: ignore[typeddict-item]
    return jax.tree.map(lambda a, b: jnp.where(book["initialized"][0] > 0, a, b), book, new)


def update(
    book: Codebooks,
    vectors: jax.Array,
    codes: jax.Array,
    key: jax.Array,
    settings: CodebookTraining,
    last: jax.Array,
) -> tuple[Codebooks, jax.Array]:
    """One book (without the axis Q) after a microbatch.

    Source: VQ-VAE (arXiv:1711.00937, appendix A.1): usage = decay usage + (1 - decay) count, and
    the same for the sums. An entry whose usage is then below `dead` times the mean becomes a
    random vector of the microbatch with mean usage (EnCodec, arXiv:2210.13438, section 3.2).

    Args:
        vectors: [N, d] float32.
        codes: [N] the entry each of them chose.
        last: bool scalar; without it vectors are only counted.

    Returns:
        the book and the number of entries revived (int32).
    """
    # A product with one-hot rows, since a scatter-add on a GPU gives other bits on every run.
    chosen = jax.nn.one_hot(codes, book["usage"].shape[0], dtype=jnp.float32)
    new_usage = book["new_usage"] + jnp.sum(chosen, axis=0)
    new_sum = book["new_sum"] + jnp.matmul(chosen.T, vectors, precision=jax.lax.Precision.HIGHEST)
    keep = settings.decay
    usage = keep * book["usage"] + (1 - keep) * new_usage
    embed_sum = keep * book["embed_sum"] + (1 - keep) * new_sum
    mean = jnp.mean(usage)
    dead = usage < settings.dead * mean
    candidates = vectors[jax.random.randint(key, usage.shape, 0, vectors.shape[0])]
    usage = jnp.where(dead, mean, usage)
    embed_sum = jnp.where(dead[:, None], candidates * mean, embed_sum)
    after = Codebooks(
        embed_sum=jnp.where(last, embed_sum, book["embed_sum"]),
        usage=jnp.where(last, usage, book["usage"]),
        initialized=book["initialized"],
        new_sum=jnp.where(last, 0, new_sum),
        new_usage=jnp.where(last, 0, new_usage),
    )
    return after, jnp.where(last, jnp.sum(dead), 0).astype(jnp.int32)


def kmeans(
    vectors: jax.Array, centres: int, key: jax.Array, iterations: int
) -> tuple[jax.Array, jax.Array]:
    """Lloyd's algorithm from random vectors; a centre that nobody chooses stays where it is.

    Args:
        vectors: [N, d] float32. With fewer vectors than centres, some centres start alike.

    Returns:
        centres [V, d] and how many vectors chose each in the last round [V], both float32.
    """
    n = vectors.shape[0]
    # Without replacement as far as it goes: whole permutations one after the other.
    rounds = jax.vmap(lambda k: jax.random.permutation(k, n))(
        jax.random.split(key, -(-centres // n))
    )
    chosen = vectors[rounds.reshape(-1)[:centres]]

    def step(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        middle = carry[0]
        member = jax.nn.one_hot(nearest(vectors, middle), centres, dtype=jnp.float32)
        counts = jnp.sum(member, axis=0)
        sums = jnp.matmul(member.T, vectors, precision=jax.lax.Precision.HIGHEST)
        means = sums / jnp.maximum(counts, 1)[:, None]
        return jnp.where(counts[:, None] > 0, means, middle), counts

    return jax.lax.fori_loop(0, iterations, step, (chosen, jnp.zeros((centres,))))


def active_books(key: jax.Array, rows: int, books: int, dropout: float) -> jax.Array:
    """How many books each row uses, [rows] int32: all, or with probability `dropout` 1 ... books.

    Source: DAC (arXiv:2306.06546, section 3.2).
    """
    coin, count = jax.random.split(key)
    fewer = jax.random.randint(count, (rows,), 1, books + 1)
    return jnp.where(jax.random.bernoulli(coin, dropout, (rows,)), fewer, books)


def straight_through(
    x: jax.Array, quantized: Quantized, active: jax.Array, bypass: jax.Array
) -> jax.Array:
    """The sum of the active books with the gradient of x (arXiv:1308.3432, VQ-VAE section 3.2).

    Args:
        x: [B, T, d] what was quantized.
        active: [B] int, books of each row in use; a row with none is zero and has no gradient.
        bypass: [B] bool, rows that keep x itself.

    Returns:
        [B, T, d] in the dtype of x.
    """
    books = quantized.entries.shape[2]
    used = jnp.arange(books) < active[:, None]
    total = jnp.sum(jnp.where(used[:, None, :, None], quantized.entries, 0), axis=2)
    wide = x.astype(jnp.float32)
    # wide + (total - wide) would round; this is `total` to the bit.
    through = total + (wide - jax.lax.stop_gradient(wide))
    through = jnp.where((active > 0)[:, None, None], through, 0)
    return jnp.where(bypass[:, None, None], wide, through).astype(x.dtype)


def perplexity(usage: jax.Array) -> jax.Array:
    """exp(entropy) of the shares of the entries: 1 ... V. usage [..., V] -> [...]."""
    share = usage / jnp.maximum(jnp.sum(usage, axis=-1, keepdims=True), MIN_USAGE)
    return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(share, share), axis=-1))


def used(usage: jax.Array, dead: float) -> jax.Array:
    """Part of the entries that are alive (see `update`). usage [..., V] -> [...] in 0 ... 1."""
    limit = dead * jnp.mean(usage, axis=-1, keepdims=True)
    return jnp.mean((usage > limit).astype(jnp.float32), axis=-1)


def _quantized(x: jax.Array, codes: jax.Array, entries: jax.Array) -> Quantized:
    """Books (axis 0 of codes and entries) behind time, and the residuals with the gradient of x."""
    codes, entries = jnp.moveaxis(codes, 0, -1), jnp.moveaxis(entries, 0, 2)
    before = jnp.cumsum(entries, axis=2) - entries
    residuals = x[:, :, None] - jax.lax.stop_gradient(before)
    return Quantized(codes, jax.lax.stop_gradient(entries), residuals)
