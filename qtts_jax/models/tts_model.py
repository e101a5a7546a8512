"""One checkpoint's networks under one root: talker, code predictor and speaker encoder."""

from __future__ import annotations

from flax import nnx

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.models.code_predictor import CodePredictor
from qtts_jax.models.speaker_encoder import SpeakerEncoder
from qtts_jax.models.talker import Talker


class TTSModel(nnx.Module):
    """Parameters of a text-to-speech checkpoint (the speech tokenizer is a model of its own)."""

    def __init__(self, config: TTSConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        talker = config.talker
        self.talker = Talker(talker, rngs=rngs)
        self.code_predictor = (
            None
            if talker.code_predictor is None
            else CodePredictor(talker.code_predictor, talker.transformer.width, rngs=rngs)
        )
        self.speaker_encoder = (
            None
            if config.speaker_encoder is None
            else SpeakerEncoder(config.speaker_encoder, rngs=rngs)
        )
