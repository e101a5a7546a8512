import functools

import chex
import jax
import numpy as np

from qtts_jax.generation.packed_rows import pack, unpack


def test_packed_arrays_come_out_as_they_were():
    rng = np.random.default_rng(0)
    tree = {
        "ids": rng.integers(-1, 2**31 - 1, (2, 5), np.int32),
        "flags": rng.random((2, 3)) < 0.5,
        "none": np.zeros((2, 4, 0), np.int32),
        "pair": (rng.standard_normal((2, 3, 2)).astype(np.float32), np.array([1, -5], np.int32)),
        "seeds": np.array([0, 2**32 - 1], np.uint32),
    }
    packed, layout = pack(tree)
    assert packed.shape == (2, 5 + 3 + 6 + 1 + 1)
    found = jax.jit(functools.partial(unpack, layout=layout))(packed)
    chex.assert_trees_all_equal_structs(found, tree)
    for leaf, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True):
        assert leaf.dtype == wanted.dtype
        np.testing.assert_array_equal(leaf, wanted)
    hash(layout)  # a static argument of programs
