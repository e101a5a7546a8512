"""One new position of every row written into key/value caches on TPUs, in place.

XLA:TPU has no cheap form of this: a scatter becomes a loop over the rows, a selection reads and
writes the whole cache. The kernel copies each row's key and value to its slot in HBM, all at once.
"""

from __future__ import annotations

from functools import partial

import jax


def write_rows(
    keys: jax.Array,
    values: jax.Array,
    new_keys: jax.Array,
    new_values: jax.Array,
    position: jax.Array,
    *,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Caches [B, S, K, h] with new [B, K, h] at each row's position [B]; beyond S, unchanged.

    A position of a cache must be whole tiles of memory: h a multiple of 128 and K 2, 4 or a
    multiple of 8, or XLA copies the caches to another layout and back.

    Args:
        keys, values: updated in place where the caller gives them up.
        new_keys, new_values: of the type of the caches.
    """
    from jax.experimental import pallas as pl  # slow to import, and for TPUs only
    from jax.experimental.pallas import tpu as pltpu

    moved = sum(t.size * t.dtype.itemsize for t in (new_keys, new_values))
    written_keys, written_values = pl.pallas_call(
        _kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(),
            in_specs=[pl.BlockSpec(memory_space=pltpu.VMEM)] * 2
            + [pl.BlockSpec(memory_space=pl.ANY)] * 2,
            out_specs=[pl.BlockSpec(memory_space=pl.ANY)] * 2,
            scratch_shapes=[pltpu.SemaphoreType.DMA((2,))],
        ),
        out_shape=[jax.ShapeDtypeStruct(t.shape, t.dtype) for t in (keys, values)],
        input_output_aliases={3: 0, 4: 1},
        cost_estimate=pl.CostEstimate(flops=0, transcendentals=0, bytes_accessed=2 * moved),
        interpret=interpret,
        name="write_rows",
    )(position, new_keys, new_values, keys, values)
    return written_keys, written_values


def _kernel(
    position: jax.Ref,
    new_keys: jax.Ref,
    new_values: jax.Ref,
    keys_in: jax.Ref,
    values_in: jax.Ref,
    keys: jax.Ref,
    values: jax.Ref,
    arrived: jax.Ref,
) -> None:
    """Start the copies of all rows, then wait for them; `*_in` are the memory of `keys, values`."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    rows, slots = keys.shape[:2]

    def each(begin: bool, row: jax.Array, carry: None) -> None:
        slot = position[row]

        @pl.when(slot < slots)
        def _() -> None:
            for i, (new, cache) in enumerate(((new_keys, keys), (new_values, values))):
                copy = pltpu.make_async_copy(new.at[row], cache.at[row, slot], arrived.at[i])
                if begin:
                    copy.start()
                else:
                    copy.wait()

    jax.lax.fori_loop(0, rows, partial(each, True), None)
    jax.lax.fori_loop(0, rows, partial(each, False), None)
