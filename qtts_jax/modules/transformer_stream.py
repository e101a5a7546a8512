"""The parameters of a `Transformer` in the order in which a persistent kernel streams them."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from qtts_jax.configs.tts import TransformerConfig
from qtts_jax.functional import Params
from qtts_jax.layers.cuda import layout
from qtts_jax.layers.quantized_weights import Quantized

# What `layers/cuda/layer.cuh` is written for: language models of the released checkpoints.
_HEADS = {"heads": 16, "kv_heads": 8, "head_dim": 128}
_KIND = {"norm": "rms", "ffn": "swiglu", "qk_norm": True, "layer_scale": None, "window": None}
_WIDTHS = (layout.PIECE, 2 * layout.PIECE)


def supports(c: TransformerConfig, params: Params) -> bool:
    """Whether a persistent kernel can run this stack: released sizes, plain bfloat16 weights."""
    if any(getattr(c, name) != value for name, value in (_HEADS | _KIND).items()):
        return False
    if c.width not in _WIDTHS or c.ffn_width != c.width // layout.PIECE * layout.FFN_PIECE:
        return False
    leaves = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, Quantized))
    return all(not isinstance(x, Quantized) and x.dtype == jnp.bfloat16 for x in leaves)


def stream(c: TransformerConfig, params: Params) -> dict[str, jax.Array]:
    """Arrays that a kernel reads.

    Returns:
        layers [L, BLOCKS, chunks, CHUNK] bfloat16; norms [2 L + 1, D] float32, of attention and
        feed-forward of every layer and the last; scales [2 L, h] float32, of queries and keys.
    """
    blocks = [params["layers"][i] for i in range(c.layers)]
    layers = None
    norms, scales = [], []
    for i, block in enumerate(blocks):
        mix, ffn = block["attention"], block["ffn"]
        qkv, out = mix["qkv"]["kernel"], mix["out"]["kernel"]
        qkv, out = qkv.reshape(-1, qkv.shape[-1]), out.reshape(len(out), -1)
        packed = layout.layer(qkv, out, ffn["gate_up"]["kernel"], ffn["down"]["kernel"])
        if layers is None:
            layers = jnp.zeros((c.layers, *packed.shape), packed.dtype)
        layers = _put(layers, packed, i)
        norms += [block["attention_norm"]["scale"], block["ffn_norm"]["scale"]]
        scales += [mix["q_norm"]["scale"], mix["k_norm"]["scale"]]
    assert layers is not None
    norms.append(params["norm"]["scale"])
    return {
        "layers": layers,
        "norms": jnp.stack(norms).astype(jnp.float32),
        "scales": jnp.stack(scales).astype(jnp.float32),
    }


@partial(jax.jit, donate_argnums=0)
def _put(layers: jax.Array, packed: jax.Array, i: jax.Array | int) -> jax.Array:
    """Write one layer in place: stacking a list of them would need the memory twice."""
    return layers.at[i].set(packed)


def words(c: TransformerConfig) -> int:
    """8-byte words of the exchanges of a layer."""
    heads = c.heads + 2 * c.kv_heads
    return layout.layer_words(c.width, c.heads * c.head_dim, heads * c.head_dim)
