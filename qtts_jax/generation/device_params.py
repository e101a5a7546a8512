"""Placement of inference parameters: the text embedding may stay in host memory.

Then only the rows that a request needs are copied to the device (`gather_text_rows`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import Params
from qtts_jax.layers import dispatch, storage_policy
from qtts_jax.layers.host_table import HostTable
from qtts_jax.models import code_predictor_kernel, talker_kernel
from qtts_jax.models.code_predictor import with_projected_rows
from qtts_jax.modules import transformer_stream


def load_shapes(shapes: Params) -> Params:
    """Parameter shapes of a `TTSModel` for loading; the text table gets a sharding on the host."""
    if not storage_policy.tables_on_host():
        return shapes
    try:
        host = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS excludes the CPU: the table is loaded through the device
        return shapes
    x = shapes["talker"]["text_embedding"]["table"]
    return _with_table(shapes, jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=host))


def inference_params(config: TTSConfig, params: Params) -> Params:
    """Parameters of a `TTSModel` in the layout and place that generation needs on this device.

    Given shapes (`jax.ShapeDtypeStruct`), it returns shapes.
    """
    shapes = isinstance(jax.tree.leaves(params)[0], jax.ShapeDtypeStruct)
    changes: list[Callable[[Params], Params]] = [functools.partial(_with_streams, config)]
    if storage_policy.preproject_tables():
        changes.insert(0, with_projected_rows)
    for change in changes:
        params = jax.eval_shape(change, params) if shapes else change(params)
    if storage_policy.tables_on_host():
        table = params["talker"]["text_embedding"]["table"]
        params = _with_table(params, HostTable(jax.device_get(table)))
    return params


def gather_text_rows(params: Params, *ids: Any) -> tuple[Any, ...]:
    """Text ids for a program: unchanged, or as indices into a table of only the rows they name.

    Args:
        ids: int32 arrays of any shape, -1 for no text.

    Returns:
        The parameters for the program, then each of the arrays.
    """
    table = params["talker"]["text_embedding"]["table"]
    if not isinstance(table, HostTable):
        return (params, *ids)
    flat = np.concatenate([np.ravel(x) for x in ids])
    indices = np.where(flat >= 0, np.arange(len(flat), dtype=np.int32), -1)
    parts = np.split(indices, np.cumsum([np.size(x) for x in ids])[:-1])
    shaped = [part.reshape(np.shape(x)) for part, x in zip(parts, ids, strict=True)]
    return (_with_table(params, table.rows(flat)), *shaped)


def with_table_on_device(params: Params) -> Params:
    """Parameters whose text table is on the device, for programs that embed text in large batches.

    The rows of a large padded batch are megabytes to gather and copy, its ids kilobytes.
    """
    table = params["talker"]["text_embedding"]["table"]
    if not isinstance(table, HostTable):
        return params
    device = jax.tree.leaves(params)[0].sharding
    return _with_table(params, jax.device_put(table.table, device))


def _with_streams(config: TTSConfig, params: Params) -> Params:
    """Parameters with packed copies of the weights that a persistent kernel reads."""
    if not dispatch.persistent_kernels():
        return params
    c, talker = config.talker, params["talker"]
    if transformer_stream.supports(c.transformer, talker["transformer"]):
        params = params | {"talker": talker_kernel.with_stream(c.transformer, talker)}
    if c.code_predictor is None:
        return params
    predictor = params["code_predictor"]
    if code_predictor_kernel.supports(c.code_predictor, predictor):
        predictor = code_predictor_kernel.with_stream(c.code_predictor, predictor)
    return params | {"code_predictor": predictor}


def _with_table(params: Params, table: Any) -> Params:
    """The same parameters with another text embedding."""
    return params | {"talker": params["talker"] | {"text_embedding": {"table": table}}}
