"""Jitted entry points of generation: start, run, append, grow."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import Params, abstract, bind, matmul_precision
from qtts_jax.generation.batch import HostBatch
from qtts_jax.generation.loops import run_until_done
from qtts_jax.generation.loops import start as start_batch
from qtts_jax.generation.packed_rows import Layout, unpack
from qtts_jax.generation.sampling import SamplingPlan
from qtts_jax.generation.state import DecodeInputs, GenerationState
from qtts_jax.layers import dispatch
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.placement import per_shard, place_rows, row_count, row_sharding, traced_for

Function = TypeVar("Function", bound=Callable[..., Any])


class Programs:
    """The jitted functions of one configuration on one device or mesh.

    Parameters are arguments, never captured. Text ids are positions in the text table of `params`:
    where that table stays in host memory, `device_params.gather_text_rows` makes both.

    Attributes:
        row_multiple: rows of a batch must be a multiple of this.
        row_sharding: of arguments with the rows of a batch first; None for a single device.
    """

    def __init__(self, config: TTSConfig, mesh: Mesh | None = None) -> None:
        graphdef, _ = abstract(TTSModel, config)
        self.row_sharding = row_sharding(mesh)
        with traced_for(mesh):
            self.row_multiple = row_count(mesh) * dispatch.fewest_rows()

        def start(
            params: Params, packed: jax.Array, *, layout: Layout, capacity: int
        ) -> tuple[GenerationState, DecodeInputs]:
            """See `loops.start`; `packed` is a `HostBatch`."""

            def prefill(params: Params, packed: jax.Array) -> tuple[GenerationState, DecodeInputs]:
                with matmul_precision(params):
                    inputs: HostBatch = unpack(packed, layout)
                    return start_batch(bind(graphdef, params), inputs, capacity)

            return over_rows(prefill, mesh)(params, packed)

        def run(
            params: Params,
            conditions: DecodeInputs,
            state: GenerationState,
            *,
            methods: SamplingPlan,
            frames: int,
        ) -> tuple[jax.Array, GenerationState]:
            """See `loops.run_until_done`."""

            def decode(
                params: Params, conditions: DecodeInputs, state: GenerationState
            ) -> tuple[jax.Array, GenerationState]:
                with matmul_precision(params):
                    model = bind(graphdef, params)
                    return run_until_done(model, methods, conditions, state, frames)

            return over_rows(decode, mesh)(params, conditions, state)

        def append(
            params: Params, conditions: DecodeInputs, ids: jax.Array, count: jax.Array
        ) -> DecodeInputs:
            """Write embedded ids [1, n], of which the first `count` are real, after the text."""
            with traced_for(mesh), matmul_precision(params):
                new = bind(graphdef, params).talker.embed_text(ids)  # [1, n, D]
            text, length = conditions.text, conditions.text_length
            text = jax.lax.dynamic_update_slice(text, new, (0, length[0], 0))
            after = conditions._replace(text=text, text_length=length + count)
            return place_rows(after, mesh)

        def grow(cache: jax.Array, *, capacity: int) -> jax.Array:
            """Pad keys or values [B, S, K, h] to `capacity` positions."""
            padded = jnp.pad(cache, ((0, 0), (0, capacity - cache.shape[1]), (0, 0), (0, 0)))
            return place_rows(padded, mesh)

        self.start = jax.jit(start, static_argnames=("layout", "capacity"))
        self.run = jax.jit(run, static_argnames=("methods", "frames"), donate_argnames="state")
        self.append = jax.jit(append)
        self.grow = jax.jit(grow, static_argnames="capacity")


@functools.lru_cache(maxsize=32)
def programs(config: TTSConfig, mesh: Mesh | None = None) -> Programs:
    """The programs of a configuration, shared by every model that has it on these devices.

    Args:
        mesh: devices that the parameters are on (`sharding.mesh_of`); None for a single one.
    """
    return Programs(config, mesh)


def over_rows(function: Function, mesh: Mesh | None) -> Function:
    """`function` of a language model with its rows split over the data axis of a mesh.

    Without a model axis, every shard of the rows runs by itself, with the kernels of one device and
    its own end of the loop. With one, XLA splits the plain definitions over both axes.

    Args:
        function: (params, *rows) -> a tree; all leaves but parameters have the rows first.
    """
    if mesh is None or mesh.shape["model"] == 1:
        return per_shard(function, mesh)

    def run(params: Params, *arguments: Any) -> Any:
        with traced_for(mesh):
            return place_rows(function(params, *arguments), mesh)

    return cast(Function, run)
