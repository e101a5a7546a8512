"""Receptive field of the 25 Hz decoder, and the latency that it causes in a stream."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
from qtts_jax.configs.tokenizer_25hz_decoder import BigVGANConfig, Decoder25HzConfig
from qtts_jax.functional import shapes_of
from qtts_jax.models.tokenizer_25hz.vocoder import Vocoder


@dataclass(frozen=True)
class ReceptiveField:
    """Input that a part of the output depends on.

    Attributes:
        back_blocks, ahead_blocks: attention blocks around a block that its mel depends on, over all
            network evaluations.
        right_samples: samples, beyond its own, of the mel that a sample of audio depends on.
    """

    back_blocks: int
    ahead_blocks: int
    right_samples: int


@dataclass(frozen=True)
class Latency:
    """Algorithmic latency of a stream in milliseconds of speech, without computing time.

    Attributes:
        block_ms: a block, the unit in which codes are taken.
        look_ahead_ms: the blocks that must follow a block before it is finished.
        vocoder_ms: the right context of the vocoder.
        first_codes: codes needed before the first audio.
    """

    block_ms: float
    look_ahead_ms: float
    vocoder_ms: float
    first_codes: int


def receptive_field(config: Decoder25HzConfig, steps: int) -> ReceptiveField:
    """The receptive field of a decode with `steps` points of the solution.

    An evaluation of the network reaches one block further for every layer that attends to the block
    after (or before), and the reach of successive evaluations adds up.
    """
    slopes, layers = steps - 1, range(config.dit.layers)
    return ReceptiveField(
        back_blocks=slopes * sum(config.dit.looks_back(i) for i in layers),
        ahead_blocks=slopes * sum(config.dit.looks_ahead(i) for i in layers),
        right_samples=_vocoder_delay(config.vocoder),
    )


def latency(config: Tokenizer25HzConfig, steps: int, look_ahead: int | None = None) -> Latency:
    """The latency of a stream with this `look_ahead` (see `Flow.init_state`).

    Audio of the first block starts once the blocks that it depends on are complete, unless the
    vocoder's right context is longer than a block.
    """
    dit, vocoder = config.decoder.dit, config.decoder.vocoder
    field = receptive_field(config.decoder, steps)
    blocks = field.ahead_blocks
    if look_ahead is not None:
        blocks = min(look_ahead, blocks)
    block_samples = dit.block * vocoder.samples_per_frame
    per_ms = config.output_sample_rate / 1000
    needed = blocks * dit.block + field.right_samples // vocoder.samples_per_frame + 1
    first_blocks = -(-needed // dit.block)
    return Latency(
        block_ms=block_samples / per_ms,
        look_ahead_ms=blocks * block_samples / per_ms,
        vocoder_ms=field.right_samples / per_ms,
        first_codes=-(-first_blocks * dit.block // dit.repeats),
    )


@functools.lru_cache(maxsize=8)
def _vocoder_delay(config: BigVGANConfig) -> int:
    """`Vocoder.delay`, from the structure without its parameters."""
    vocoder: Vocoder = shapes_of(Vocoder, config)
    return vocoder.delay
