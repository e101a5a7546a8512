"""One check of the streaming contract for every layer with memory (`qtts_jax/layers/streaming.py`).

`verify_streaming(layer, x)` feeds x in many chunkings and asserts that

- the chunks together are the one-shot output (and the plain call, where there is one);
- so are their gradients, with respect to the inputs or, for integer inputs, to the parameters;
- shapes, dtypes and structure of the state never change, and its leaves are batch-first;
- a row depends neither on the rows beside it (NaN and garbage) nor on the one stored before it;
- a row that is held or restored with `where_rows` continues as if nothing had happened;
- outputs do not depend on later inputs, and do depend on earlier ones (by gradient);
- they depend on exactly as many inputs as the layer declares, where it does (by gradient);
- right padding (NaN) beyond `lengths` changes nothing before it, where the layer takes lengths.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qtts_jax.layers.streaming import where_rows

# Each chunking compiles its own shapes, and here compiling costs more than running.
FAST = {"xla_backend_optimization_level": 0}
CHUNKINGS = (1, 2, 3, 5, "all", "random")


class Fed:
    """A layer with its steps jitted; `step` and `init_state` may be replaced.

    Args:
        unit: inputs of one smallest chunk (the stride of a layer that divides the rate).
    """

    def __init__(self, layer, unit=1, step=None, init_state=None):
        self.unit = unit
        self.init_state = init_state or layer.init_state
        self.function = step or layer.step
        self.step = jax.jit(self.function, compiler_options=FAST)

    def run(self, x, sizes, state=None):
        """Feed x [B, T, ...] in chunks of `sizes` units: (y, state, states after every chunk)."""
        state = self.init_state(x.shape[0], _state_dtype(x)) if state is None else state
        outputs, states, start = [], [], 0
        for size in sizes:
            stop = start + size * self.unit
            y, state = self.step(x[:, start:stop], state)
            outputs.append(np.asarray(y))
            states.append(state)
            start = stop
        assert start == x.shape[1], "the chunking does not cover the input"
        return np.concatenate(outputs, axis=1), state, states


def sizes_of(chunking, units, seed=0):
    """Chunk sizes of a chunking (a number, "all" or "random") of so many units."""
    if chunking == "all":
        return [units]
    rng, sizes = np.random.default_rng(seed), []
    while sum(sizes) < units:
        sizes.append(int(rng.choice([1, 2, 3, 5])) if chunking == "random" else chunking)
    sizes[-1] -= sum(sizes) - units
    return sizes


def verify_streaming(
    layer,
    x,
    *,
    unit=1,
    chunkings=CHUNKINGS,
    atol=1e-5,
    step=None,
    init_state=None,
    takes_lengths=False,
    receptive_field=None,
):
    """Assert the contract for x [B, T, ...] with B >= 2; returns the one-shot output.

    Args:
        step, init_state: instead of the layer's own (to choose an output or a capacity).
        takes_lengths: whether `step(x, state, lengths)` is offered.
        receptive_field: the newest inputs that the outputs of one unit depend on, as the layer
            declares it; None where it declares nothing.
    """
    with jax.default_matmul_precision("highest"):
        fed = Fed(layer, unit, step, init_state)
        x = np.asarray(x)
        assert x.shape[0] >= 2
        assert x.shape[1] % unit == 0
        units = x.shape[1] // unit
        assert units >= 2
        fresh = fed.init_state(x.shape[0], _state_dtype(x))
        whole, last_state, _ = fed.run(x, [units])
        assert np.isfinite(whole).all()
        if step is None and callable(layer):
            np.testing.assert_allclose(
                np.asarray(jax.jit(layer.__call__, compiler_options=FAST)(x)),
                whole,
                rtol=0,
                atol=atol,
            )
        for chunking in chunkings:
            sizes = sizes_of(chunking, units)
            y, state, states = fed.run(x, sizes)
            np.testing.assert_allclose(y, whole, rtol=0, atol=atol, err_msg=f"chunks {chunking}")
            for each in states:
                _assert_same_form(each, fresh)
            _assert_states_close(state, last_state, atol)
        _verify_batch_first(fed, x)
        _verify_rows_apart(fed, x, whole, atol)
        _verify_hold_and_reset(fed, x, whole, atol)
        _verify_causality(fed, x, whole)
        _verify_gradients(fed, layer, x, atol)
        if receptive_field is not None:
            _verify_receptive_field(fed, x, receptive_field)
        if takes_lengths:
            _verify_lengths(fed, x, atol)
        return whole


def _state_dtype(x):
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.dtype(jnp.float32)


def _assert_same_form(state, fresh):
    assert jax.tree.structure(state) == jax.tree.structure(fresh)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(fresh), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


def _assert_states_close(a, b, atol):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = (np.asarray(t, np.float64) for t in (x, y))
        np.testing.assert_allclose(x, y, rtol=0, atol=10 * atol)


def _verify_batch_first(fed, x):
    dtype = _state_dtype(x)
    two, three = (jax.eval_shape(lambda n=n: fed.init_state(n, dtype)) for n in (2, 3))
    for a, b in zip(jax.tree.leaves(two), jax.tree.leaves(three), strict=True):
        assert (a.shape[0], b.shape[0]) == (2, 3)
        assert a.shape[1:] == b.shape[1:]


def _spoiled(x):
    """x with NaN (floats) or other values (integers) in every row but the first."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return np.concatenate([x[:1], np.full_like(x[1:], np.nan)])
    return np.concatenate([x[:1], x[1:, ::-1]])


def _verify_rows_apart(fed, x, whole, atol):
    sizes = sizes_of("random", x.shape[1] // fed.unit, seed=1)
    y, state, _ = fed.run(_spoiled(x), sizes)
    np.testing.assert_allclose(y[0], whole[0], rtol=0, atol=atol)
    for leaf in jax.tree.leaves(state):
        assert np.isfinite(np.asarray(leaf[0], np.float64)).all()


def _verify_hold_and_reset(fed, x, whole, atol):
    """Garbage passes through every row; then row 0 is put back, to the middle or to the start."""
    units = x.shape[1] // fed.unit
    half = units // 2
    cut, done = half * fed.unit, whole.shape[1] * half // units
    first = np.arange(x.shape[0]) == 0
    pick = jax.jit(where_rows)
    _, before, _ = fed.run(x[:, :cut], sizes_of(3, half))
    _, after, _ = fed.run(_spoiled(x)[::-1][:, :cut], sizes_of(3, half), before)
    rest = sizes_of(3, units - half)
    y, _, _ = fed.run(x[:, cut:], rest, pick(first, before, after))
    np.testing.assert_allclose(y[0], whole[0, done:], rtol=0, atol=atol)
    fresh = fed.init_state(x.shape[0], _state_dtype(x))
    y, _, _ = fed.run(x, [units], pick(first, fresh, after))
    np.testing.assert_allclose(y[0], whole[0], rtol=0, atol=atol)


def _verify_causality(fed, x, whole):
    units = x.shape[1] // fed.unit
    cut, done = units // 2 * fed.unit, whole.shape[1] * (units // 2) // units
    state = fed.init_state(x.shape[0], _state_dtype(x))
    if not jnp.issubdtype(x.dtype, jnp.floating):
        other = np.concatenate([x[:, :cut], x[:, cut:][:, ::-1]], axis=1)
        y = np.asarray(fed.step(other, state)[0])
        np.testing.assert_array_equal(y[:, :done], whole[:, :done])
        assert (y[:, done:] != whole[:, done:]).any()
        return

    def early(x):
        return _weighted_sum(fed.function(x, state)[0][:, :done])

    gradient = np.asarray(jax.jit(jax.grad(early), compiler_options=FAST)(x))
    assert (gradient[:, cut:] == 0).all(), "an output depends on a later input"
    assert np.abs(gradient[:, cut - fed.unit : cut]).max() > 0, "the newest input has no effect"


def reach(gradient, axis):
    """First and last index along `axis` with a gradient: the measured receptive field."""
    rows = np.moveaxis(np.asarray(gradient), axis, 0)
    found = np.flatnonzero(rows.reshape(len(rows), -1).any(axis=1))
    return int(found[0]), int(found[-1])


def _weighted_sum(y):
    """A scalar of y [B, T, ...] with another weight for each of its numbers."""
    return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))


def _verify_gradients(fed, layer, x, atol):
    """A loss over three steps of equal chunks has the gradients of the same loss over one step."""
    count = min(3, x.shape[1] // fed.unit)
    x = x[:, : x.shape[1] // fed.unit // count * count * fed.unit]

    def loss(step, x, count):
        # A scan, so that the step and its gradient are compiled once for all chunks.
        chunks = x.reshape(x.shape[0], count, -1, *x.shape[2:]).swapaxes(0, 1)
        state = fed.init_state(x.shape[0], _state_dtype(x))
        _, y = jax.lax.scan(lambda state, chunk: step(chunk, state)[::-1], state, chunks)
        y = y.swapaxes(0, 1)
        return _weighted_sum(y.reshape(y.shape[0], -1, *y.shape[3:]))

    if jnp.issubdtype(x.dtype, jnp.floating):

        def gradient(count):
            return jax.grad(lambda x: loss(fed.function, x, count))(x)
    elif isinstance(layer, nnx.Module):
        graph, params = nnx.split(layer)

        def gradient(count):
            return jax.grad(lambda p: loss(nnx.merge(graph, p).step, x, count))(params)
    else:
        return

    both = jax.jit(lambda: (gradient(count), gradient(1)), compiler_options=FAST)
    chunked, whole = both()
    for a, b in zip(jax.tree.leaves(chunked), jax.tree.leaves(whole), strict=True):
        scale = max(1.0, float(np.abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=0, atol=10 * atol * scale, err_msg="gradients")


def _verify_receptive_field(fed, x, declared):
    state = fed.init_state(x.shape[0], _state_dtype(x))
    x = np.concatenate([x] * (declared // x.shape[1] + 1), axis=1)
    last = x.shape[1] - 1

    def newest(x):
        y = fed.function(x, state)[0]
        return _weighted_sum(y[:, y.shape[1] - y.shape[1] * fed.unit // x.shape[1] :])

    gradient = jax.jit(jax.grad(newest), compiler_options=FAST)(x)
    assert reach(gradient, axis=1) == (last + 1 - declared, last)


def _verify_lengths(fed, x, atol):
    """Rows of different lengths, padded with NaN, give what each gives alone."""
    batch, total = x.shape[0], x.shape[1]
    units = total // fed.unit
    rng = np.random.default_rng(2)
    lengths = rng.integers(1, total + 1, batch)
    lengths[0] = total
    lengths[-1] = max(1, total - fed.unit // 2 - 1)
    padded = x.copy()
    for row, n in enumerate(lengths):
        padded[row, n:] = np.nan

    def feed(x, lengths, sizes):
        state, start, out = fed.init_state(x.shape[0], _state_dtype(x)), 0, []
        for size in sizes:
            stop = start + size * fed.unit
            left = np.clip(lengths - start, 0, stop - start).astype(np.int32)
            y, state = fed.step(x[:, start:stop], state, left)
            out.append(np.asarray(y))
            start = stop
        return np.concatenate(out, axis=1)

    for chunking in ("all", 2):
        y = feed(padded, lengths, sizes_of(chunking, units, seed=3))
        ratio = total // y.shape[1] if y.shape[1] <= total else 1
        for row in range(batch):
            n = int(lengths[row])
            alone = np.where(np.isnan(padded), 0, padded)[row : row + 1]
            expected = feed(alone, lengths[row : row + 1], [units])
            real = -(-n // ratio)
            assert np.isfinite(y[row, :real]).all()
            np.testing.assert_allclose(
                y[row, :real], expected[0, :real], rtol=0, atol=atol, err_msg=f"{chunking} {row}"
            )
