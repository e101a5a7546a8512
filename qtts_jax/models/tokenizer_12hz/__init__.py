"""The 12 Hz tokenizer: waveform to 16 codes a frame and back, streaming in both directions."""

from qtts_jax.models.tokenizer_12hz.decoder import Decoder, DecoderState
from qtts_jax.models.tokenizer_12hz.encoder import Encoder, EncoderState
from qtts_jax.models.tokenizer_12hz.model import Tokenizer12Hz

__all__ = ["Decoder", "DecoderState", "Encoder", "EncoderState", "Tokenizer12Hz"]
