"""The families of speech tokenizers, by the `model_type` of their `config.json`."""

from __future__ import annotations

from qtts_jax.configs.tokenizer_25hz import TOKENIZER_25HZ
from qtts_jax.configs.tts import TOKENIZER_12HZ
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.speech_tokenizer.codec_12hz import SpeechTokenizer12Hz
from qtts_jax.speech_tokenizer.codec_25hz import SpeechTokenizer25Hz

# `SpeechTokenizer.from_pretrained` and `from_params` choose from this table. The base class holds
# it, so that it need not import its own subclasses.
SpeechTokenizer.families.update(
    {TOKENIZER_12HZ: SpeechTokenizer12Hz, TOKENIZER_25HZ: SpeechTokenizer25Hz}
)
