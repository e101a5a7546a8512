"""Both halves under one root, the tree of a tokenizer checkpoint."""

from __future__ import annotations

from flax import nnx

from qtts_jax.configs.tokenizer_12hz import Quirks12Hz, Tokenizer12HzConfig
from qtts_jax.models.tokenizer_12hz.decoder import Decoder
from qtts_jax.models.tokenizer_12hz.encoder import Encoder


class Tokenizer12Hz(nnx.Module):
    """`encoder` and `decoder` (upstream `Qwen3TTSTokenizerV2Model`).

    The parameters do not depend on the quirks.
    """

    def __init__(
        self,
        config: Tokenizer12HzConfig,
        quirks: Quirks12Hz = Quirks12Hz(),  # noqa: B008 (frozen)
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.encoder = Encoder(config.encoder, config.codebooks, quirks, rngs=rngs)
        self.decoder = Decoder(config.decoder, rngs=rngs)
