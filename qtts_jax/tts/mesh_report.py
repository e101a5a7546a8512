"""What a model takes of each device of a mesh, and which matrices every device has wholly."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from qtts_jax.configs.tts import TalkerConfig, TTSConfig
from qtts_jax.functional import Params, computation_dtype, logical_axes
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.sharding import CACHE_AXES, mesh_axes, mesh_of, named, parts


def whole_attention(talker: TalkerConfig, mesh: Mesh | AbstractMesh) -> str | None:
    """A sentence on attention that the model axis does not divide; None where it divides all."""
    size = mesh.shape["model"]
    stacks = {"talker": talker.transformer}
    if talker.code_predictor is not None:
        stacks["code predictor"] = talker.code_predictor.transformer
    whole = [(name, c.kv_heads) for name, c in stacks.items() if c.kv_heads % size]
    if not whole:
        return None
    all_heads = int(np.gcd.reduce([c.kv_heads for c in stacks.values()]))
    fitting = [str(n) for n in range(1, all_heads + 1) if all_heads % n == 0]
    named_heads = " and ".join(f"the {n} key/value heads of the {name}" for name, n in whole)
    return (
        f"a model axis of {size} does not divide {named_heads}, so every device computes this "
        f"attention and keeps its caches wholly; sizes that divide: {', '.join(fitting)}."
    )


def mesh_report(config: TTSConfig, params: Params, speech: Params) -> dict[str, Any]:
    """Bytes on each device, for `qtts info --mesh`; empty without a mesh."""
    mesh = mesh_of(params)
    if mesh is None:
        return {}
    split, whole = 0, 0
    for x in jax.tree.leaves(params):
        size = _device_bytes(x)
        split, whole = (split, whole + size) if x.is_fully_replicated else (split + size, whole)
    codec = sum(_device_bytes(x) for x in jax.tree.leaves(speech) if isinstance(x, jax.Array))
    c = config.talker.transformer
    shape = (parts(mesh, "batch"), 1, c.kv_heads, c.head_dim)  # one row a device
    here = named(mesh, CACHE_AXES, shape).shard_shape(shape)
    position = 2 * c.layers * int(np.prod(here)) * computation_dtype(params).itemsize
    absent = _whole_though_named(config, params)
    return {
        "mesh": ", ".join(f"{name}={size}" for name, size in mesh.shape.items()),
        "on each device": f"parameters {_mb(split + whole)}, of which {_mb(whole)} are on every "
        f"device, + {_mb(codec)} in the speech tokenizer",
        "caches": f"{position:,} bytes on its device for each row and position",
        "not split": whole_attention(config.talker, mesh)
        or (f"{absent} parameters that the model axis does not divide" if absent else "nothing"),
    }


def _whole_though_named(config: TTSConfig, params: Params) -> int:
    """How many parameters have an axis of the rules that the mesh does not divide."""
    mesh = mesh_of(params)
    if mesh is None or mesh.shape["model"] == 1:
        return 0
    axes = jax.tree.leaves(logical_axes(TTSModel, config), is_leaf=lambda x: isinstance(x, tuple))
    arrays = jax.tree.leaves(params, is_leaf=lambda x: hasattr(x, "dtype"))
    return sum(
        any(mesh_axes(mesh, name) for name in names)
        and all(leaf.is_fully_replicated for leaf in jax.tree.leaves(x))
        for names, x in zip(axes, arrays, strict=True)
    )


def _device_bytes(x: jax.Array) -> int:
    """Bytes of an array that one device holds."""
    return int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
