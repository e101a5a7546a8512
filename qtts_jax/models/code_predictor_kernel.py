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

from qtts_jax.configs.tts import CodePredictorConfig, TransformerConfig
from qtts_jax.functional import Params
from qtts_jax.layers.cuda import layout
from qtts_jax.layers.cuda.launch import Kernel
from qtts_jax.layers.preprojected_table import Projected
from qtts_jax.layers.quantized_weights import Quantized
from qtts_jax.layers.rope import rope_angles
from qtts_jax.layers.streamed_weights import Streamed

F32 = jnp.float32
VOCAB, BOOKS = 2048, 15
# The transformer that the kernel is written for: that of every released model of the 12 Hz family.
SIZES = {"layers": 5, "width": 1024, "heads": 16, "kv_heads": 8, "head_dim": 128, "ffn_width": 3072}
KIND = {"norm": "rms", "ffn": "swiglu", "qk_norm": True, "layer_scale": None, "window": None}
# Exchanges of a layer (`layer.cuh`), logits, and the best code of every block.
WORDS = 4 * (3 * 1024 + 3072 // 2) + 8 * 512 + VOCAB + 2 * layout.BLOCKS
SHARED_BYTES = 220 * 1024


class Draw(NamedTuple):
    """How the codes of one row are drawn, each [1]: `sampling.SamplerParams` without top-p."""

    temperature: jax.Array
    top_k: jax.Array
    do_sample: jax.Array


def supports(c: CodePredictorConfig, params: Params) -> bool:
    """Whether the kernel is written for this predictor: released sizes, plain bfloat16 weights."""
    t: TransformerConfig = c.transformer
    if c.pattern != "sequential" or (c.vocab_size, c.codebooks) != (VOCAB, BOOKS + 1):
        return False
    if any(getattr(t, name) != value for name, value in (SIZES | KIND).items()):
        return False
    leaves = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, Quantized))
    return all(not isinstance(x, Quantized) and x.dtype == jnp.bfloat16 for x in leaves)


def with_stream(c: CodePredictorConfig, params: Params) -> Params:
    """Parameters of a `CodePredictor` whose heads carry the packed weights of all of it."""
    transformer, heads = params["transformer"], params["heads"]
    blocks = [transformer["layers"][i] for i in range(c.transformer.layers)]
    packed, norms, scales = [], [], []
    for block in blocks:
        mix, ffn = block["attention"], block["ffn"]
        qkv, out = mix["qkv"]["kernel"], mix["out"]["kernel"]
        qkv, out = qkv.reshape(-1, qkv.shape[-1]), out.reshape(len(out), -1)
        packed.append(layout.layer(qkv, out, ffn["gate_up"]["kernel"], ffn["down"]["kernel"]))
        norms += [block["attention_norm"]["scale"], block["ffn_norm"]["scale"]]
        scales += [mix["q_norm"]["scale"], mix["k_norm"]["scale"]]
    norms.append(transformer["norm"]["scale"])
    rows = c.vocab_size // layout.BLOCKS
    positions = jnp.arange(c.codebooks)[None]
    angles = rope_angles(positions, c.transformer.head_dim, c.transformer.rope_theta)
    stream = {
        "layers": jnp.stack(packed),  # [L, BLOCKS, chunks, CHUNK]
        "heads": jax.lax.map(lambda head: layout.rows_of_16(head, rows), heads),
        "norms": jnp.stack(norms).astype(F32),  # [2 L + 1, D]
        "scales": jnp.stack(scales).astype(F32),  # [2 L, h]
        "angles": jnp.stack([angles.cos[0], angles.sin[0]], axis=-1),  # [Q, h/2, 2]
    }
    return params | {"heads": Streamed(heads, stream)}


def generate(
    stream: dict[str, jax.Array],
    embeddings: jax.Array | Projected,
    inputs: jax.Array,
    noise: jax.Array,
    draw: Draw,
    eps: float,
) -> tuple[jax.Array, jax.Array]:
    """Codebooks 1..Q-1 of one frame of one row.

    Args:
        stream: of `with_stream`.
        embeddings: the tables of the predictor.
        inputs: [2, D], the talker's hidden state and the embedding of codebook 0, projected.
        noise: [Q-1, V] float32 of `residual_codes.residual_noise`.
        eps: of the norms.

    Returns:
        codes [Q-1] int32 (NOT_FINITE where logits are) and their logits [Q-1, V] float32.
    """
    kernel = Kernel(
        source="code_predictor.cu",
        blocks=layout.BLOCKS,
        threads=32 * (layout.WARPS + 1),
        shared_bytes=SHARED_BYTES,
        words=WORDS,
        defines=(("RMS_EPS", f"{eps!r}f"),),
    )
    rows = embeddings.rows if isinstance(embeddings, Projected) else embeddings
    arguments: list[Any] = [stream["layers"], stream["heads"], rows]
    arguments += [stream["norms"], stream["scales"], stream["angles"]]
    arguments += [inputs.astype(F32), noise.astype(F32)]
    arguments += [draw.temperature.astype(F32), draw.top_k.astype(jnp.int32)]
    arguments.append(draw.do_sample.astype(jnp.int32))
    results = [
        jax.ShapeDtypeStruct((BOOKS,), jnp.int32),
        jax.ShapeDtypeStruct((BOOKS, VOCAB), F32),
    ]
    codes, logits = kernel(arguments, results)
    return codes, logits
