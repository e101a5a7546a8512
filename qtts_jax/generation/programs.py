"""Jitted entry points of generation: start, run, append, grow."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import Params, abstract, bind, matmul_precision
from qtts_jax.generation.batch import HostBatch
from qtts_jax.generation.loops import run_until_done
from qtts_jax.generation.loops import start as start_batch
from qtts_jax.generation.sampling import SamplingPlan
from qtts_jax.generation.state import DecodeInputs, GenerationState
from qtts_jax.models.tts_model import TTSModel


class Programs:
    """The jitted functions of one configuration; parameters are arguments, never captured.

    Text ids are positions in the text table of `params`: where that table stays in host memory,
    `device_params.gather_text_rows` makes both.
    """

    def __init__(self, config: TTSConfig) -> None:
        graphdef, _ = abstract(TTSModel, config)

        def start(
            params: Params, inputs: HostBatch, *, capacity: int
        ) -> tuple[GenerationState, DecodeInputs]:
            """See `loops.start`."""
            with matmul_precision(params):
                return start_batch(bind(graphdef, params), inputs, capacity)

        def run(
            params: Params,
            conditions: DecodeInputs,
            state: GenerationState,
            *,
            methods: SamplingPlan,
            frames: int,
        ) -> tuple[jax.Array, GenerationState]:
            """See `loops.run_until_done`."""
            with matmul_precision(params):
                return run_until_done(bind(graphdef, params), methods, conditions, state, frames)

        def append(
            params: Params, conditions: DecodeInputs, ids: jax.Array, count: jax.Array
        ) -> DecodeInputs:
            """Write embedded ids [1, n], of which the first `count` are real, after the text."""
            with matmul_precision(params):
                new = bind(graphdef, params).talker.embed_text(ids)  # [1, n, D]
            text, length = conditions.text, conditions.text_length
            text = jax.lax.dynamic_update_slice(text, new, (0, length[0], 0))
            return conditions._replace(text=text, text_length=length + count)

        def grow(cache: jax.Array, *, capacity: int) -> jax.Array:
            """Pad keys or values [B, S, K, h] to `capacity` positions."""
            return jnp.pad(cache, ((0, 0), (0, capacity - cache.shape[1]), (0, 0), (0, 0)))

        self.start = jax.jit(start, static_argnames="capacity")
        self.run = jax.jit(run, static_argnames=("methods", "frames"), donate_argnames="state")
        self.append = jax.jit(append)
        self.grow = jax.jit(grow, static_argnames="capacity")


@functools.lru_cache(maxsize=16)
def programs(config: TTSConfig) -> Programs:
    """The programs of a configuration, shared by every model that has it."""
    return Programs(config)
