"""Reference voices of a requests file, each encoded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtts_jax.errors import RequestError
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.speech_tokenizer.voice_files import read_array
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
from qtts_jax.tts.qwen_tts import QwenTTS


class VoiceCache:
    """Encodes the reference recordings of requests and keeps the last `SIZE` of them.

    Each is encoded alone, so a request never depends on its neighbours. Besides recordings, a
    request to a 25 Hz checkpoint may name the files `xvector` and `ref_mel`.

    Args:
        folder: relative paths are looked up here first, then in the working directory.
        allow_url: fetch recordings that are named by a URL.
    """

    SIZE = 64

    def __init__(self, tts: QwenTTS, folder: Path, allow_url: bool = False) -> None:
        self.tts, self._folder, self._allow_url = tts, folder, allow_url
        self._known: dict[tuple[Any, ...], VoiceClonePromptItem] = {}

    def __call__(self, data: dict[str, Any]) -> VoiceClonePromptItem:
        """The voice of a request.

        Raises:
            QTTSError: no reference, or one that cannot be used.
        """
        if not data.get("ref_audio"):
            raise RequestError("ref_audio is missing; name the reference recording.")
        files = (data.get("xvector"), data.get("ref_mel"))
        key = (data["ref_audio"], data.get("ref_text"), data.get("x_vector_only", False), *files)
        if key not in self._known:
            audio, words, x_vector_only = key[:3]
            item = self.tts.create_voice_clone_prompt(
                self.path(audio),
                words,
                x_vector_only,
                self.decoder_voice(data),
                allow_url=self._allow_url,
            )[0]
            if len(self._known) == self.SIZE:
                self._known.pop(next(iter(self._known)))
            self._known[key] = item
        return self._known[key]

    def decoder_voice(self, data: dict[str, Any]) -> ReferenceVoice | None:
        """The voice that a request names for its decoder, or None.

        Raises:
            RequestError: one of two files is missing or cannot be read.
        """
        vector, mel = data.get("xvector"), data.get("ref_mel")
        if (vector is None) != (mel is None):
            raise RequestError("xvector and ref_mel describe a voice together: give both.")
        if vector is None or mel is None:
            return None
        return ReferenceVoice(
            read_array(Path(self.path(vector)), "the x-vector"),
            read_array(Path(self.path(mel)), "the reference mel"),
        )

    def path(self, name: str) -> str:
        """The path of a reference file; a name that is none (a URL, base64) stays as it is."""
        beside = self._folder / name
        try:
            return str(beside) if beside.exists() else name
        except OSError:  # base64 audio is no valid file name
            return name
