"""FLOPs of a training step of the talker, and peak FLOP/s of known devices."""

from __future__ import annotations

import jax

from qtts_jax.configs.tts import TransformerConfig, TTSConfig

# Dense bf16 FLOP/s of one device as its vendor gives them, by a part of the name JAX shows.
PEAK_BF16 = {
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
}


def peak_flops(device: jax.Device | None = None) -> float | None:
    """Peak bf16 FLOP/s of a device (the first one by default); None when it is not known."""
    kind = (device or jax.devices()[0]).device_kind
    return next((peak for name, peak in PEAK_BF16.items() if name in kind), None)


def transformer_flops(c: TransformerConfig, positions: float, length: float) -> float:
    """Forward FLOPs of a stack over `positions` positions in causal sequences of `length`.

    Two for each weight of a matrix and position; a query of a causal sequence meets half of the
    keys on average, twice (scores and values). Norms and rotations are left out, as is usual.
    """
    heads = c.head_dim * (2 * c.heads + 2 * c.kv_heads)
    ffn = (3 if c.ffn == "swiglu" else 2) * c.ffn_width
    matrices = 2 * c.width * (heads + ffn)
    attention = 2 * 2 * c.heads * c.head_dim * (length + 1) / 2
    return c.layers * positions * (matrices + attention)


def talker_flops(
    config: TTSConfig, positions: int, frames: int, predictor_frames: int | None = None
) -> float:
    """FLOPs of the forward and backward passes over one row; the backward pass is two forwards.

    This counts what the model needs, not what rematerialisation computes twice, so a share of the
    peak made from it is comparable between ways of training (model FLOPs utilisation, PaLM,
    arXiv:2204.02311, appendix B).

    Args:
        positions: of the talker, padding included.
        frames: among them, padding included.
        predictor_frames: frames that train the code predictor; None for all.
    """
    c = config.talker
    # The delay pattern has further steps after the last frame.
    positions, frames = positions + c.lag, frames + c.lag
    width = c.transformer.width
    text = 2 * positions * (c.text_width * c.text_width + c.text_width * width)
    head = 2 * positions * width * c.vocab_size
    total = text + head + transformer_flops(c.transformer, positions, positions)
    if c.code_predictor is not None:
        p = c.code_predictor
        inner, chosen = p.transformer.width, predictor_frames or frames
        length = p.codebooks if p.pattern == "sequential" else 2
        if inner != width:
            total += 2 * chosen * length * width * inner
        total += transformer_flops(p.transformer, chosen * length, length)
        total += 2 * chosen * (p.codebooks - 1) * inner * p.vocab_size
    return 3 * total
