"""Decoders of other sizes for the 25 Hz tokenizer, and what they are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.golden_tools import detweights

# Of the decoder's tensors in a whole tokenizer checkpoint, by which their weights are drawn.
PREFIX = "decoder."


@dataclass(frozen=True)
class Case:
    """A small decoder and one batch for it.

    Attributes:
        config: `decoder_config` of the tokenizer's config.json; absent fields are class defaults.
        lengths: codes of each row; the official code fills shorter rows up with code 0.
        reference: mel frames of each row's reference, filled up with zeros likewise.
        steps, guidance, sway: of the solution; no sway is None.
    """

    name: str
    seed: int
    config: dict[str, Any]
    lengths: tuple[int, ...]
    reference: tuple[int, ...]
    steps: int
    guidance: float
    sway: float | None

    def inputs(self) -> dict[str, np.ndarray]:
        """codes [B, T], xvectors [B, X], references [B, Tm, M], noise [B, T * repeats, M]."""
        dit = self.config["dit_config"]
        rows, mels = len(self.lengths), dit["mel_dim"]
        codes = np.zeros((rows, max(self.lengths)), np.int64)
        references = np.zeros((rows, max(self.reference), mels), np.float32)
        for i, (length, frames) in enumerate(zip(self.lengths, self.reference, strict=True)):
            codes[i, :length] = detweights.integers(
                self.seed, f"codes{i}", (length,), dit["num_embeds"]
            )
            references[i, :frames] = detweights.symmetric(self.seed, f"ref{i}", (frames, mels), 3.0)
        shape = (rows, codes.shape[1] * dit["repeats"], mels)
        return {
            "codes": codes,
            "xvectors": detweights.symmetric(self.seed, "xvector", (rows, dit["enc_emb_dim"])),
            "references": references,
            "noise": detweights.symmetric(self.seed, "noise", shape, 3**0.5),
        }


def _dit(**changes: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "ff_mult": 2,
        "emb_dim": 12,
        "head_dim": 16,
        "num_embeds": 40,
        "mel_dim": 10,
        "enc_emb_dim": 6,
        "enc_dim": 8,
        "enc_channels": [8, 8, 8, 16],
        "enc_kernel_sizes": [5, 3, 3, 1],
        "enc_dilations": [1, 2, 3, 1],
        "enc_attention_channels": 4,
        "enc_res2net_scale": 2,
        "enc_se_channels": 4,
        **changes,
    }


CASES = (
    # The official defaults of the solution; blocks hold whole codes, the last is not full.
    Case(
        name="ten_steps",
        seed=5101,
        config={
            "dit_config": _dit(
                repeats=4, block_size=8, look_ahead_layers=[1], look_backward_layers=[0, 3]
            ),
            "bigvgan_config": {
                "mel_dim": 10,
                "upsample_initial_channel": 16,
                "resblock_kernel_sizes": [3, 7],
                "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]],
                "upsample_rates": [3, 2, 2],
                "upsample_kernel_sizes": [7, 4, 4],
            },
        },
        lengths=(11, 6),
        reference=(9, 14),
        steps=10,
        guidance=0.5,
        sway=-1.0,
    ),
    # Layers that look both ways, blocks across codes, no sway, much guidance, an MLP of 1.5 widths.
    Case(
        name="both_ways",
        seed=5203,
        config={
            "dit_config": _dit(
                ff_mult=1.5,
                repeats=3,
                block_size=7,
                look_ahead_layers=[0, 2],
                look_backward_layers=[2, 3],
            ),
            "bigvgan_config": {
                "mel_dim": 10,
                "upsample_initial_channel": 8,
                "resblock_kernel_sizes": [5],
                "resblock_dilation_sizes": [[2, 1, 4]],
                "upsample_rates": [5],
                "upsample_kernel_sizes": [11],
            },
        },
        lengths=(3, 9, 7),
        reference=(12, 12, 12),
        steps=4,
        guidance=1.75,
        sway=None,
    ),
    # No layer looks beyond its block; one evaluation; a kernel as long as its rate.
    Case(
        name="blocks_apart",
        seed=5307,
        config={
            "dit_config": _dit(
                repeats=1, block_size=5, look_ahead_layers=[], look_backward_layers=[]
            ),
            "bigvgan_config": {
                "mel_dim": 10,
                "upsample_initial_channel": 8,
                "resblock_kernel_sizes": [7, 3, 5],
                "resblock_dilation_sizes": [[1, 1, 2], [3, 2, 1], [1, 2, 3]],
                "upsample_rates": [2, 3],
                "upsample_kernel_sizes": [2, 9],
            },
        },
        lengths=(17,),
        reference=(30,),
        steps=2,
        guidance=0.5,
        sway=-0.5,
    ),
)
