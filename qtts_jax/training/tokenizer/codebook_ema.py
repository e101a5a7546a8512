"""Codebook updates without gradients: k-means start, moving averages, revival, dropout.

The state is what a checkpoint stores: `embed_sum` and `usage`, the decayed sum and the decayed
number of the vectors assigned to an entry, whose quotient is the entry (upstream
`MimiEuclideanCodebook`, `EuclideanCodebook`); no other copy of the entries exists.
"""

from __future__ import annotations

from typing import NamedTuple, TypedDict

import jax
import jax.numpy as jnp

from qtts_jax.layers.rvq import MIN_USAGE, divide, nearest
from qtts_jax.training.tokenizer.assigned import count_and_sum
from qtts_jax.training.tokenizer.config import CodebookTraining

# k-means on a batch of fewer vectors finds fewer centres: a vector that is its own centre would
# leave a residual of zero for the next codebook.
VECTORS_PER_CENTRE = 4


class Codebooks(TypedDict):
    """State of the Q codebooks of one residual quantizer, float32.

    Attributes:
        embed_sum: [Q, V, d].
        usage: [Q, V].
        initialized: [Q, 1], 1 once k-means has filled the codebook.
        new_sum, new_usage: sums over the microbatches since the last optimizer step.
    """

    embed_sum: jax.Array
    usage: jax.Array
    initialized: jax.Array
    new_sum: jax.Array
    new_usage: jax.Array


class QuantizerOutput(NamedTuple):
    """Output of a residual quantizer for x [B, T, d].

    Attributes:
        codes: [B, T, Q] int32.
        entries: [B, T, Q, d] float32, the nearest entry of each codebook.
        residuals: [B, T, Q, d] float32, input of each codebook, with the gradient of x.
    """

    codes: jax.Array
    entries: jax.Array
    residuals: jax.Array


def empty(books: int, entries: int, width: int) -> Codebooks:
    """Uninitialized codebooks."""
    return Codebooks(
        embed_sum=jnp.zeros((books, entries, width)),
        usage=jnp.ones((books, entries)),
        initialized=jnp.zeros((books, 1)),
        new_sum=jnp.zeros((books, entries, width)),
        new_usage=jnp.zeros((books, entries)),
    )


def quantize(books: Codebooks, x: jax.Array) -> QuantizerOutput:
    """Nearest entry of every codebook to the residual of those before it (as `RVQ.encode`).

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
    initialized: bool = False,
    real: jax.Array | None = None,
) -> tuple[QuantizerOutput, Codebooks, jax.Array]:
    """Quantize with the codebooks before the update, and update them.

    All statistics are sums or gathers over the whole batch, so under `jax.jit` with a sharded batch
    every device computes the codebooks of the whole batch. With accumulation the codebooks change
    at the last microbatch only, so the result equals that of one large batch.

    Args:
        x: [B, T, d].
        key: of the k-means start and the revival of dead entries.
        accumulate: microbatches in an optimizer step.
        last: bool scalar, whether this is the last of them.
        initialized: all codebooks are known to be initialized; skips the `lax.cond`.
        real: [B, T] bool, vectors that the codebooks learn from; padding only gets codes. None for
            all.

    Returns:
        the quantization, the codebooks, and how many entries were revived (int32).
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
            # Centres and revived entries are never those of padding.
            candidates = vectors
            scale: int | jax.Array = accumulate
            if real is not None:
                candidates = vectors[_repeated(real.reshape(-1))]
                scale = accumulate * jnp.mean(real)
            if not begun:
                book = _started(book, candidates, first, settings, scale)
            rows = divide(book["embed_sum"], book["usage"])
            codes = nearest(residual, rows)
            counted = None if real is None else real.reshape(-1)
            after, revived = update(
                book, vectors, codes.reshape(-1), second, settings, last, candidates, counted
            )
            return residual - rows[codes], (codes, rows[codes], after, revived)

        return jax.lax.scan(one, jax.lax.stop_gradient(x), (books, keys))[1]

    if initialized:
        codes, entries, after, revived = run(True)
    else:
        # One `lax.cond` for all codebooks: each would synchronise the GPU with the host.
        begun = jnp.all(books["initialized"] > 0)
        codes, entries, after, revived = jax.lax.cond(begun, lambda: run(True), lambda: run(False))
    return _quantized(x, codes, entries), after, jnp.sum(revived)


def _started(
    book: Codebooks,
    vectors: jax.Array,
    key: jax.Array,
    settings: CodebookTraining,
    scale: int | jax.Array,
) -> Codebooks:
    """One codebook, initialized by k-means unless it is already.

    Args:
        scale: real vectors of a whole optimizer step for each of `vectors`.
    """
    entries = book["usage"].shape[0]
    found = max(1, min(entries, vectors.shape[0] // VECTORS_PER_CENTRE))
    centres, counts = kmeans(vectors, found, key, settings.start_iterations)
    # The rest are duplicates that no vector is assigned to, so the first update replaces them.
    centres = jnp.resize(centres, (entries, centres.shape[1]))
    # As the averages, which count the vectors of a whole optimizer step.
    counts = jnp.pad(counts * scale, (0, entries - found))
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
    candidates: jax.Array | None = None,
    real: jax.Array | None = None,
) -> tuple[Codebooks, jax.Array]:
    """Update one codebook (without the axis Q) after a microbatch.

    Source: VQ-VAE (arXiv:1711.00937, appendix A.1): usage = decay usage + (1 - decay) count, and
    the same for the sums. An entry whose usage is then below `dead` times the mean becomes a
    random vector of the microbatch with mean usage (EnCodec, arXiv:2210.13438, section 3.2).

    Args:
        vectors: [N, d] float32.
        codes: [N] the entry of each.
        last: bool scalar; without it vectors are only counted.
        candidates: [N, d], vectors that may replace dead entries; None for all.
        real: [N] bool, vectors that count; None for all.

    Returns:
        the codebook and the number of entries revived (int32).
    """
    if real is not None:
        codes = jnp.where(real, codes, -1)
        vectors = jnp.where(real[:, None], vectors, 0)  # 0 times NaN is NaN
    count, total = count_and_sum(vectors, codes, book["usage"].shape[0])
    new_usage, new_sum = book["new_usage"] + count, book["new_sum"] + total
    keep = settings.decay
    usage = keep * book["usage"] + (1 - keep) * new_usage
    embed_sum = keep * book["embed_sum"] + (1 - keep) * new_sum
    mean = jnp.mean(usage)
    dead = usage < settings.dead * mean
    candidates = vectors if candidates is None else candidates
    candidates = candidates[jax.random.randint(key, usage.shape, 0, candidates.shape[0])]
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


def _repeated(real: jax.Array) -> jax.Array:
    """Indices [N] of the real ones of N vectors, in order and repeated until there are N."""
    order = jnp.argsort(~real, stable=True)
    count = jnp.maximum(jnp.sum(real), 1)
    return order[jnp.arange(real.shape[0]) % count]


def kmeans(
    vectors: jax.Array, centres: int, key: jax.Array, iterations: int
) -> tuple[jax.Array, jax.Array]:
    """Lloyd's algorithm from random vectors; a centre without vectors stays where it is.

    Args:
        vectors: [N, d] float32. With fewer vectors than centres, some centres start alike.

    Returns:
        centres [V, d] and the vectors of each in the last iteration [V], both float32.
    """
    n = vectors.shape[0]
    # Without replacement where possible: whole permutations one after the other.
    rounds = jax.vmap(lambda k: jax.random.permutation(k, n))(
        jax.random.split(key, -(-centres // n))
    )
    chosen = vectors[rounds.reshape(-1)[:centres]]

    def step(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        middle = carry[0]
        counts, sums = count_and_sum(vectors, nearest(vectors, middle), centres)
        means = sums / jnp.maximum(counts, 1)[:, None]
        return jnp.where(counts[:, None] > 0, means, middle), counts

    return jax.lax.fori_loop(0, iterations, step, (chosen, jnp.zeros((centres,))))


def active_books(key: jax.Array, rows: int, books: int, dropout: float) -> jax.Array:
    """Codebooks in use per row, [rows] int32: all, or with probability `dropout` 1 ... books.

    Source: DAC (arXiv:2306.06546, section 3.2).
    """
    coin, count = jax.random.split(key)
    fewer = jax.random.randint(count, (rows,), 1, books + 1)
    return jnp.where(jax.random.bernoulli(coin, dropout, (rows,)), fewer, books)


def straight_through(
    x: jax.Array, quantized: QuantizerOutput, active: jax.Array, bypass: jax.Array
) -> jax.Array:
    """The sum of the active codebooks with the gradient of x (arXiv:1308.3432, VQ-VAE section 3.2).

    Args:
        x: [B, T, d], the input of the quantizer.
        active: [B] int, codebooks in use per row; a row with none is zero and has no gradient.
        bypass: [B] bool, rows that keep x unquantized.

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


def _quantized(x: jax.Array, codes: jax.Array, entries: jax.Array) -> QuantizerOutput:
    """Move the codebook axis behind time, and compute residuals with the gradient of x."""
    codes, entries = jnp.moveaxis(codes, 0, -1), jnp.moveaxis(entries, 0, 2)
    before = jnp.cumsum(entries, axis=2) - entries
    residuals = x[:, :, None] - jax.lax.stop_gradient(before)
    return QuantizerOutput(codes, jax.lax.stop_gradient(entries), residuals)
