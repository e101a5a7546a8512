"""Heads of encoder training: text from the continuous output, mel from the dequantized vectors."""

from __future__ import annotations

from flax import nnx

from qtts_jax.configs.tokenizer_25hz import Encoder25HzConfig
from qtts_jax.training.tokenizer_25hz.config import HeadsConfig
from qtts_jax.training.tokenizer_25hz.mel_decoder import MelDecoder
from qtts_jax.training.tokenizer_25hz.text_decoder import TextDecoder


class EncoderHeads(nnx.Module):
    """Text decoder and mel decoder; both exist in both stages, so that a run can go on as the next.

    Args:
        configs: sizes of the encoder and of the heads.
    """

    def __init__(self, configs: tuple[Encoder25HzConfig, HeadsConfig], *, rngs: nnx.Rngs) -> None:
        encoder, heads = configs
        self.text = TextDecoder(heads, encoder.output_width, rngs=rngs)
        self.mel = MelDecoder(
            encoder.width,
            heads.mel_channels,
            heads.mel_layers,
            encoder.frames_per_code,
            encoder.n_mels,
            rngs=rngs,
        )
