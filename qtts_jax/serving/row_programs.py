"""Jitted programs that move rows in and out of a running batch: every leaf has the batch first."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import Params, abstract, bind, matmul_precision
from qtts_jax.generation.state import DecodeInputs, GenerationState
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.placement import place_rows, traced_for


class Rows(NamedTuple):
    """All that the device keeps of B utterances, batch first.

    Attributes:
        conditions, state: of the language models.
        audio: state of the speech tokenizer's decoder; `()` where no audio is made.
    """

    conditions: DecodeInputs
    state: GenerationState
    audio: Any


def take(rows: Rows, index: jax.Array) -> Rows:
    """The rows at `index` [B'], in that order; B' may be smaller or larger than B."""
    taken: Rows = jax.tree.map(lambda x: x[index], rows)
    return taken


def insert(rows: Rows, new: Rows, index: jax.Array) -> Rows:
    """`rows` with those at `index` [P] replaced by the P rows of `new`.

    An index beyond the batch leaves its row of `new` out. The caches and the text of `new` may be
    shorter: what follows them in a row is masked by its position and by the length of its text.
    """

    def put(x: jax.Array, y: jax.Array) -> jax.Array:
        return x.at[(index, *(slice(n) for n in y.shape[1:]))].set(y, mode="drop")

    return jax.tree.map(put, rows, new)


def with_capacity(rows: Rows, capacity: int) -> Rows:
    """The key/value caches [B, S, K, h] padded with zeros, or cut, to `capacity` positions."""

    def resized(cache: jax.Array) -> jax.Array:
        missing = max(capacity - cache.shape[1], 0)
        return jnp.pad(cache[:, :capacity], ((0, 0), (0, missing), (0, 0), (0, 0)))

    talker = rows.state.talker
    layers = jax.tree.map(resized, talker.layers)
    return rows._replace(state=rows.state._replace(talker=talker._replace(layers=layers)))


def with_text_room(rows: Rows, ids: int) -> Rows:
    """The text [B, S, D] of the rows padded with zeros to `ids` positions."""
    text = rows.conditions.text
    padded = jnp.pad(text, ((0, 0), (0, ids - text.shape[1]), (0, 0)))
    return rows._replace(conditions=rows.conditions._replace(text=padded))


class RowPrograms:
    """These functions jitted, and the one that appends text to a row.

    Large arrays that are replaced are donated; `take` keeps its argument. On a mesh every result is
    placed as the programs that make frames place it, so that these are compiled once.

    Args:
        mesh: devices that the rows are on; None for a single one.
    """

    def __init__(self, config: TTSConfig, mesh: Mesh | None = None) -> None:
        graphdef, _ = abstract(TTSModel, config)

        def placed(function: Callable[..., Rows]) -> Callable[..., Rows]:
            @functools.wraps(function)
            def run(*args: Any) -> Rows:
                conditions, state, audio = function(*args)
                return Rows(
                    place_rows(conditions, mesh),
                    place_rows(state, mesh),
                    place_rows(audio, mesh, heads=False),
                )

            return run

        def append(
            params: Params,
            conditions: DecodeInputs,
            row: jax.Array,
            ids: jax.Array,
            count: jax.Array,
        ) -> DecodeInputs:
            """Write embedded ids [1, n], the first `count` of them real, after a row's text."""
            with traced_for(mesh), matmul_precision(params):
                new = bind(graphdef, params).talker.embed_text(ids)  # [1, n, D]
            start = (row, conditions.text_length[row], jnp.zeros((), row.dtype))
            longer = conditions._replace(
                text=jax.lax.dynamic_update_slice(conditions.text, new, start),
                text_length=conditions.text_length.at[row].add(count),
            )
            return place_rows(longer, mesh)

        def first(audio: Any) -> Any:
            """The first row of a decoder's state, alone."""
            return place_rows(jax.tree.map(lambda x: x[:1], audio), mesh, heads=False)

        def repeat(audio: Any, rows: int) -> Any:
            """A decoder's state of one row as that of `rows` equal ones."""
            repeated = jax.tree.map(lambda x: jnp.repeat(x, rows, axis=0), audio)
            return place_rows(repeated, mesh, heads=False)

        def join(audio: Sequence[Any]) -> Any:
            """Decoder states of one row each as one with all rows."""
            joined = jax.tree.map(lambda *x: jnp.concatenate(x), *audio)
            return place_rows(joined, mesh, heads=False)

        self.take = jax.jit(placed(take))
        self.insert = jax.jit(placed(insert), donate_argnums=0)
        self.with_capacity = jax.jit(placed(with_capacity), static_argnums=1)
        self.with_text_room = jax.jit(placed(with_text_room), static_argnums=1)
        self.append = jax.jit(append, donate_argnums=1)
        self.first = jax.jit(first)
        self.repeat = jax.jit(repeat, static_argnums=1)
        self.join = jax.jit(join)


@functools.lru_cache(maxsize=16)
def row_programs(config: TTSConfig, mesh: Mesh | None = None) -> RowPrograms:
    """The programs of a configuration and mesh, shared by every engine that has both."""
    return RowPrograms(config, mesh)
