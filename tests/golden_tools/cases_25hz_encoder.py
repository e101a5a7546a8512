"""Encoders of other sizes for the 25 Hz tokenizer, and the recordings they are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.golden_tools import detweights

RATE = 16000
# Of the encoder's tensors in a whole tokenizer checkpoint, by which their weights are drawn.
PREFIX = "encoder."


@dataclass(frozen=True)
class Case:
    """A small encoder and its recordings.

    Attributes:
        config: `encoder_config` of the tokenizer's config.json; absent fields are class defaults.
        samples: lengths of the recordings at 16 kHz.
        silent: how many of their first samples are digital silence.
    """

    name: str
    seed: int
    config: dict[str, Any]
    samples: tuple[int, ...]
    silent: tuple[int, ...]

    def waves(self) -> list[np.ndarray]:
        """The recordings, float32."""
        drawn = [
            detweights.wave(self.seed, f"wave{i}", n, RATE) for i, n in enumerate(self.samples)
        ]
        for wave, quiet in zip(drawn, self.silent, strict=True):
            wave[:quiet] = 0
        return drawn


CASES = (
    # Codes of 60 ms, a codebook of another width, no positions behind it, one block before it.
    Case(
        name="downsample3_projected",
        seed=4101,
        config={
            "n_ctx": 40,
            "n_state": 24,
            "n_head": 3,
            "n_layer": 2,
            "n_window": 30,
            "output_dim": 10,
            "audio_vq_layers": 1,
            "audio_vq_codebook_size": 64,
            "audio_vq_codebook_dim": 16,
            "audio_vq_pe": False,
            "audio_vq_ds_rate": 3,
        },
        samples=(1, 9600, 9601, 31000),
        silent=(0, 0, 0, 7000),
    ),
    # Codes of 20 ms, the codebook behind the last block, every recording within one window.
    Case(
        name="downsample1_last_layer",
        seed=4203,
        config={
            "n_ctx": 16,
            "n_state": 32,
            "n_head": 2,
            "n_layer": 3,
            "n_window": 16,
            "output_dim": 8,
            "audio_vq_layers": 3,
            "audio_vq_codebook_size": 50,
            "audio_vq_codebook_dim": 32,
            "audio_vq_pe": True,
            "audio_vq_ds_rate": 1,
        },
        samples=(321, 4800, 2000),
        silent=(0, 1000, 0),
    ),
    # The window of the class defaults, in which 80 ms make a code.
    Case(
        name="window100_downsample4",
        seed=4305,
        config={
            "n_ctx": 120,
            "n_state": 40,
            "n_head": 5,
            "n_layer": 2,
            "output_dim": 12,
            "audio_vq_layers": 2,
            "audio_vq_codebook_size": 128,
            "audio_vq_codebook_dim": 40,
            "audio_vq_ds_rate": 4,
        },
        samples=(64000, 40000),
        silent=(0, 20000),
    ),
)
