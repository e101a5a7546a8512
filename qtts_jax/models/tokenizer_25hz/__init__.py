"""The 25 Hz tokenizer: audio to one code per 40 ms, and codes and a voice back to audio."""

from qtts_jax.models.tokenizer_25hz.decoder import Decoder25Hz, Decoder25HzState
from qtts_jax.models.tokenizer_25hz.encoder import Encoder25Hz
from qtts_jax.models.tokenizer_25hz.model import Tokenizer25Hz

__all__ = ["Decoder25Hz", "Decoder25HzState", "Encoder25Hz", "Tokenizer25Hz"]
