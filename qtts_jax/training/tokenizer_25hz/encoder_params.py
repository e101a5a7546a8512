"""Conversion between trained encoder parameters with a codebook's statistics and its full tree."""

from __future__ import annotations

import jax.numpy as jnp

from qtts_jax.functional import Params
from qtts_jax.layers.rvq import divide
from qtts_jax.training.tokenizer.codebook_ema import Codebooks, empty

STORED = ("codebook", "embed_sum", "usage", "initialized")


def split_encoder(params: Params) -> tuple[Params, Codebooks]:
    """Trained parameters and the codebook of a tree of `Encoder25Hz`, float32.

    The codebook has a leading axis Q = 1. Its entries are those stored; only their weights in the
    moving averages come from `usage`, which a checkpoint may hold as 0 (the official class starts
    so). Where `initialized` is 0, the first batch fills the codebook.
    """
    quantizer = params["quantizer"]
    entries = jnp.asarray(quantizer["codebook"], jnp.float32)
    usage = jnp.asarray(quantizer["usage"], jnp.float32)
    usage = jnp.where(usage > 0, usage, 1.0)
    stored = {
        "embed_sum": (entries * usage[:, None])[None],
        "usage": usage[None],
        "initialized": jnp.asarray(quantizer["initialized"], jnp.float32)[None],
    }
    projections = {name: x for name, x in quantizer.items() if name not in STORED}
    trained = {name: x for name, x in params.items() if name != "quantizer"}
    if projections:  # only where the codebook has another width than the encoder
        trained["quantizer"] = projections
    return trained, Codebooks(**(empty(1, *entries.shape) | stored))  # type: ignore[typeddict-item]


def join_encoder(trained: Params, book: Codebooks) -> Params:
    """The tree of `Encoder25Hz`: the inverse of `split_encoder`."""
    embed_sum, usage = book["embed_sum"][0], book["usage"][0]
    stored = {
        "codebook": divide(embed_sum, usage),
        "embed_sum": embed_sum,
        "usage": usage,
        "initialized": book["initialized"][0],
    }
    return trained | {"quantizer": trained.get("quantizer", {}) | stored}
