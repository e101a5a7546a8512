"""All residual codes of a frame in one launch: the code predictor as a persistent CUDA kernel.

For one row, the predictor is 80 layers in sequence whose weights take less time to read than their
kernels to start. One kernel for the whole frame reads them in one stream. `CodePredictor.generate`
with `generation.sampling.sample` is the definition; the kernel rounds to bfloat16 in other places
(the residual stream and the logits stay float32).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qtts_jax.configs.tts import CodePredictorConfig
from qtts_jax.functional import Params
from qtts_jax.layers.cuda import layout
from qtts_jax.layers.cuda.launch import Kernel
from qtts_jax.layers.preprojected_table import Projected
from qtts_jax.layers.rope import rope_angles
from qtts_jax.layers.streamed_weights import Streamed
from qtts_jax.modules import transformer_stream

F32 = jnp.float32
VOCAB, BOOKS = 2048, 15
LAYERS, WIDTH = 5, layout.PIECE
SHARED_BYTES = 220 * 1024


class Draw(NamedTuple):
    """How the codes of one row are drawn, each [1]: `sampling.SamplerParams` without top-p."""

    temperature: jax.Array
    top_k: jax.Array
    do_sample: jax.Array


def supports(c: CodePredictorConfig, params: Params) -> bool:
    """Whether the kernel is written for this predictor, the one of all released 12 Hz models."""
    t = c.transformer
    sizes = (t.layers, t.width, c.vocab_size, c.codebooks)
    return (
        c.pattern == "sequential"
        and sizes == (LAYERS, WIDTH, VOCAB, BOOKS + 1)
        and transformer_stream.supports(t, params)
    )


def with_stream(c: CodePredictorConfig, params: Params) -> Params:
    """Parameters of a `CodePredictor` whose heads carry the packed weights of all of it."""
    heads, rows = params["heads"], c.vocab_size // layout.BLOCKS
    stream = transformer_stream.stream(c.transformer, params["transformer"])
    stream["heads"] = jax.lax.map(lambda head: layout.rows_of_16(head, rows), heads)
    return params | {"heads": Streamed(heads, stream)}


def kernel(c: CodePredictorConfig) -> Kernel:
    """The kernel of a predictor that `supports` admits."""
    return Kernel(
        source="code_predictor.cu",
        blocks=layout.BLOCKS,
        threads=32 * (layout.WARPS + 1),
        shared_bytes=SHARED_BYTES,
        words=transformer_stream.words(c.transformer) + VOCAB + 2 * layout.BLOCKS,
        defines=(("RMS_EPS", f"{c.transformer.norm_eps!r}f"),),
    )


def generate(
    stream: dict[str, jax.Array],
    embeddings: jax.Array | Projected,
    inputs: jax.Array,
    noise: jax.Array,
    draw: Draw,
    c: CodePredictorConfig,
) -> tuple[jax.Array, jax.Array]:
    """Codebooks 1..Q-1 of one frame of one row.

    Args:
        stream: of `with_stream`.
        embeddings: the tables of the predictor.
        inputs: [2, D], the talker's hidden state and the embedding of codebook 0, projected.
        noise: [Q-1, V] float32 of `residual_codes.residual_noise`.
        c: sizes.

    Returns:
        codes [Q-1] int32 (NOT_FINITE where logits are) and their logits [Q-1, V] float32.
    """
    rows = embeddings.rows if isinstance(embeddings, Projected) else embeddings
    arguments: list[Any] = [stream["layers"], stream["heads"], rows]
    t = c.transformer
    angles = rope_angles(jnp.arange(c.codebooks)[None], t.head_dim, t.rope_theta)
    arguments += [stream["norms"], stream["scales"]]
    arguments.append(jnp.stack([angles.cos[0], angles.sin[0]], axis=-1))  # [Q, h/2, 2]
    arguments += [inputs.astype(F32), noise.astype(F32)]
    arguments += [draw.temperature.astype(F32), draw.top_k.astype(jnp.int32)]
    arguments.append(draw.do_sample.astype(jnp.int32))
    results = [
        jax.ShapeDtypeStruct((BOOKS,), jnp.int32),
        jax.ShapeDtypeStruct((BOOKS, VOCAB), F32),
    ]
    codes, logits = kernel(c)(arguments, results)
    return codes, logits
