"""Text to speech: `QwenTTS`, its request objects and the verbs of the official package."""
