"""One step of the talker for one row in one launch: all its layers as a persistent CUDA kernel.

`Transformer.step_blocks` is the definition; the kernel keeps the residual stream in float32 and
rounds to bfloat16 where weights are multiplied, and in the caches.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from qtts_jax.configs.tts import TransformerConfig
from qtts_jax.functional import Params
from qtts_jax.layers.attention import KeyValues
from qtts_jax.layers.cuda import layout
from qtts_jax.layers.cuda.launch import Kernel
from qtts_jax.layers.rope import rope_angles
from qtts_jax.layers.streamed_weights import Streamed
from qtts_jax.modules import transformer_stream
from qtts_jax.modules.transformer import TransformerState

F32 = jnp.float32
SHARED_BYTES = 224 * 1024
# Words of each block for its part of the softmax: sums, maximum and total of two heads.
PART = 272


def with_stream(c: TransformerConfig, params: Params) -> Params:
    """Parameters of a `Talker` whose head carries the packed weights of the transformer."""
    head = params["codec_head"]["kernel"]
    streamed = Streamed(head, transformer_stream.stream(c, params["transformer"]))
    return params | {"codec_head": params["codec_head"] | {"kernel": streamed}}


def kernel(c: TransformerConfig) -> Kernel:
    """The kernel of a talker that `transformer_stream.supports` admits."""
    numbers = range(2 * c.layers)
    return Kernel(
        source="talker.cu",
        blocks=layout.BLOCKS,
        threads=32 * (layout.WARPS + 1),
        shared_bytes=SHARED_BYTES,
        words=transformer_stream.words(c) + layout.BLOCKS * PART,
        defines=(
            ("RMS_EPS", f"{c.norm_eps!r}f"),
            ("WIDTH", str(c.width)),
            ("LAYERS", str(c.layers)),
            ("CACHES", ", ".join(f"bf16* in{i}" for i in numbers)),
            ("OUT_CACHES", ", ".join(f"bf16* out{i}" for i in numbers)),
            ("OUT_CACHE_LIST", ", ".join(f"out{i}" for i in numbers)),
        ),
    )


def step(
    c: TransformerConfig, stream: dict[str, jax.Array], x: jax.Array, state: TransformerState
) -> tuple[jax.Array, TransformerState]:
    """One position of one row.

    Args:
        stream: of `with_stream`.
        x: [1, D].

    Returns:
        [1, D] float32 before the final norm, and the state, whose caches take the place of those
        given.
    """
    caches = [cache for layer in state.layers for cache in layer]  # 2 L of [1, S, K, h]
    angles = rope_angles(state.position[:, None], c.head_dim, c.rope_theta)
    arguments: list[Any] = [stream["layers"], stream["norms"], stream["scales"]]
    arguments.append(jnp.stack([angles.cos[0, 0], angles.sin[0, 0]], axis=-1))  # [h/2, 2]
    arguments += [x.astype(F32), state.position.astype(jnp.int32)]
    arguments.append(jnp.full((1,), caches[0].shape[1], jnp.int32))
    first = len(arguments)
    results = [jax.ShapeDtypeStruct(x.shape, F32)]
    results += [jax.ShapeDtypeStruct(cache.shape, cache.dtype) for cache in caches]
    shared = {first + i: 1 + i for i in range(len(caches))}
    y, *caches = kernel(c)([*arguments, *caches], results, shared)
    layers = tuple(KeyValues(*caches[i : i + 2]) for i in range(0, len(caches), 2))
    return y, TransformerState(layers, state.position + 1)
