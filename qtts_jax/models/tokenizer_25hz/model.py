"""Both halves under one root, the tree of a tokenizer checkpoint."""

from __future__ import annotations

from flax import nnx

from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
from qtts_jax.models.tokenizer_25hz.decoder import Decoder25Hz
from qtts_jax.models.tokenizer_25hz.encoder import Encoder25Hz


class Tokenizer25Hz(nnx.Module):
    """`encoder` and `decoder` (upstream `Qwen3TTSTokenizerV1Model`)."""

    def __init__(self, config: Tokenizer25HzConfig, *, rngs: nnx.Rngs) -> None:
        self.encoder = Encoder25Hz(config.encoder, rngs=rngs)
        self.decoder = Decoder25Hz(config.decoder, rngs=rngs)
