"""Qwen3-TTS in JAX/Flax: exact, fast and small enough to read in an afternoon.

    from qtts_jax import CustomVoice, QwenTTS, SpeechTokenizer

    tts = QwenTTS.from_pretrained()  # a small checkpoint inside the package
    (speech,) = tts.generate([CustomVoice("Hello there.", tts.supported_speakers[0])])

Everything below these objects (configurations, layers, models, prompts, frame steps) is public too
and documented in its own module.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qtts_jax.sharding import make_mesh, parse_mesh
    from qtts_jax.speech_tokenizer.base import SpeechTokenizer
    from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
    from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
    from qtts_jax.tts.qwen_tts import QwenTTS
    from qtts_jax.tts.synthesis import Speech
    from qtts_jax.tts.voices import CustomVoice, VoiceClone, VoiceDesign

_HOMES = {
    "CustomVoice": "qtts_jax.tts.voices",
    "QwenTTS": "qtts_jax.tts.qwen_tts",
    "ReferenceVoice": "qtts_jax.speech_tokenizer.reference_voice",
    "Speech": "qtts_jax.tts.synthesis",
    "SpeechTokenizer": "qtts_jax.speech_tokenizer.base",
    "VoiceClone": "qtts_jax.tts.voices",
    "VoiceClonePromptItem": "qtts_jax.tts.clone_prompt",
    "make_mesh": "qtts_jax.sharding",
    "parse_mesh": "qtts_jax.sharding",
    "VoiceDesign": "qtts_jax.tts.voices",
}
__all__ = [
    "CustomVoice",
    "QwenTTS",
    "ReferenceVoice",
    "Speech",
    "SpeechTokenizer",
    "VoiceClone",
    "VoiceClonePromptItem",
    "VoiceDesign",
    "make_mesh",
    "parse_mesh",
]


def __getattr__(name: str) -> Any:
    # Imported on demand, so that lower rooms can be imported without loading every model.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
