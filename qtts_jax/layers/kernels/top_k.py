"""Sampling from the k best values of a row without a sort."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

WARPS = 8
# Bits fixed so far, threshold, values that are no smaller.
Carry = tuple[jax.Array, jax.Array, jax.Array]


@partial(jax.jit, static_argnames="interpret")
def select(
    logits: jax.Array,
    noise: jax.Array,
    temperature: jax.Array,
    top_k: jax.Array,
    do_sample: jax.Array,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Draw from the k best of every row by Gumbel noise, or take the best; the first of equals.

    The k-th best value is found without a sort: its float32 bits, as ordered integers, are fixed
    from the top by counting how many values are no smaller. `generation.sampling.sample` is the
    plain definition.

    Args:
        logits: [B, V] float32 without NaN.
        noise: [B, V] float32, standard Gumbel, finite; a row without `do_sample` is not read.
        temperature: [B] float32 above 0.
        top_k: [B] int32, at least 1; V or more keeps all. Ties with the k-th stay.
        do_sample: [B] bool.

    Returns:
        [B] int32.
    """
    rows = logits.shape[0]
    codes: jax.Array = pl.pallas_call(
        _select_kernel,
        grid=(rows,),
        out_shape=jax.ShapeDtypeStruct((rows,), jnp.int32),
        compiler_params=plgpu.CompilerParams(num_warps=WARPS),
        interpret=interpret,
        name="select",
    )(logits, noise, temperature, top_k, jnp.asarray(do_sample).astype(jnp.int32))
    return codes


def _select_kernel(
    logits: jax.Ref,
    noise: jax.Ref,
    temperature: jax.Ref,
    top_k: jax.Ref,
    do_sample: jax.Ref,
    out: jax.Ref,
) -> None:
    row, vocab = pl.program_id(0), logits.shape[1]
    size = pl.next_power_of_2(vocab)
    # A start that is not static, because a static slice may not pass the end, even masked.
    real, all_ids = jnp.arange(size) < vocab, pl.ds(row * 0, size)
    raw = plgpu.load(logits.at[row, all_ids], mask=real, other=-jnp.inf)
    sampling = do_sample[row] != 0
    gumbel = plgpu.load(noise.at[row, all_ids], mask=real & sampling, other=0.0)
    scaled = raw / temperature[row]
    # -0 and 0 are equal but differ in bits. The sign bit flips the order of the others.
    bits = jax.lax.bitcast_convert_type(jnp.where(scaled == 0, 0.0, scaled), jnp.int32)
    order = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    k = jnp.minimum(top_k[row], vocab)

    def narrow(carry: Carry) -> Carry:
        step, threshold, _ = carry
        # The sign bit first: adding it to the smallest integer gives 0.
        candidate = threshold + jnp.left_shift(jnp.int32(1), 31 - step)
        count = jnp.sum((order >= candidate).astype(jnp.int32))
        enough = count >= k
        # Exactly k values are left: lower bits cannot matter.
        step = jnp.where(count == k, 32, step + 1)
        return step, jnp.where(enough, candidate, threshold), count

    start = jnp.int32(0), jnp.int32(-(2**31)), jnp.int32(size)
    start = (jnp.where(sampling & (k < vocab), start[0], 32), *start[1:])
    _, threshold, _ = jax.lax.while_loop(lambda carry: carry[0] < 32, narrow, start)
    drawn = jnp.where(order >= threshold, scaled, -jnp.inf) + gumbel
    out[row] = jnp.argmax(jnp.where(sampling, drawn, raw), axis=0).astype(jnp.int32)
