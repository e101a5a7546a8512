"""The public speech tokenizers: audio to codes and codes to audio, whole or in a stream.

`load` is imported here because importing it registers both families with
`base.SpeechTokenizer`, whose `from_pretrained` looks the family up by `model_type`.
"""

from qtts_jax.speech_tokenizer import load as load
