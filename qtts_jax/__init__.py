"""Qwen3-TTS in JAX/Flax: exact, fast and small enough to read in an afternoon.

    from qtts_jax import QwenTTS, SpeechTokenizer

Everything below these two objects (configurations, layers, models, prompts, frame steps) is public
too and documented where it stands.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qtts_jax.speech_tokenizer.base import SpeechTokenizer
    from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
    from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
    from qtts_jax.tts.qwen_tts import QwenTTS
    from qtts_jax.tts.synthesis import Speech

_HOMES = {
    "QwenTTS": "qtts_jax.tts.qwen_tts",
    "ReferenceVoice": "qtts_jax.speech_tokenizer.reference_voice",
    "Speech": "qtts_jax.tts.synthesis",
    "VoiceClonePromptItem": "qtts_jax.tts.clone_prompt",
    "SpeechTokenizer": "qtts_jax.speech_tokenizer.base",
}
__all__ = ["QwenTTS", "ReferenceVoice", "Speech", "SpeechTokenizer", "VoiceClonePromptItem"]


def __getattr__(name: str) -> Any:
    # Lazy, so that lower rooms can be imported without loading every model.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
