"""Cloned voices that clients upload: encoded once, kept across restarts as .npz and .json files."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np

from qtts_jax.errors import RequestError
from qtts_jax.io.atomic_files import write_whole
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class VoiceStore:
    """Voices by name, in memory or in a folder, which several servers may share.

    Args:
        folder: made if absent. None keeps voices in memory alone.
        most: voices that may be kept.
        reserved: names that are not free, such as those of preset speakers.
    """

    def __init__(self, folder: Path | None, most: int, reserved: list[str]) -> None:
        self._folder, self._most = folder, most
        self._reserved = {name.lower() for name in reserved}
        # Each with the version of its file, 0 without a folder.
        self._voices: dict[str, tuple[int, VoiceClonePromptItem]] = {}
        self._lock = threading.Lock()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for name in self.names():  # a broken file is a fault of the start, not of a request
                self.get(name)

    def names(self) -> list[str]:
        """The names, sorted."""
        if self._folder is None:
            return sorted(self._voices)
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def get(self, name: str) -> VoiceClonePromptItem | None:
        """The voice of this name, or None."""
        if self._folder is not None and _NAME.fullmatch(name):
            self._refresh(name, self._folder / f"{name}.json")
        _, voice = self._voices.get(name, (0, None))
        return voice

    def _refresh(self, name: str, path: Path) -> None:
        """Load a voice that has changed since, by whichever server, or forget one that is gone."""
        try:
            version = path.stat().st_mtime_ns
            if name not in self._voices or self._voices[name][0] != version:
                self._voices[name] = version, _load(path)
        except FileNotFoundError:
            self._voices.pop(name, None)

    def check_name(self, name: str) -> None:
        """Check that a voice may be added under this name.

        Raises:
            RequestError: a bad name, one in use, or there are too many voices.
        """
        if not _NAME.fullmatch(name):
            raise RequestError(
                f"the name of a voice must be 1 to 64 letters, digits, - or _, not {name[:80]!r}."
            )
        names = self.names()
        # Some file systems ignore case.
        if name.lower() in self._reserved | {each.lower() for each in names}:
            raise RequestError(f"there is a voice {name!r} already; choose another name.")
        if len(names) >= self._most:
            raise RequestError(f"there are {self._most} voices, the most allowed; delete one.")

    def add(self, name: str, voice: VoiceClonePromptItem) -> None:
        """Keep a voice.

        Raises:
            RequestError: as `check_name`.
        """
        with self._lock:
            self.check_name(name)
            if self._folder is None:
                self._voices[name] = 0, voice
            else:
                _save(self._folder / f"{name}.json", voice)

    def remove(self, name: str) -> bool:
        """Delete a voice; False when there is none of this name."""
        with self._lock:
            if name not in self.names():
                return False
            self._voices.pop(name, None)
            if self._folder is not None:
                (self._folder / f"{name}.json").unlink(missing_ok=True)
                (self._folder / f"{name}.npz").unlink(missing_ok=True)
            return True


def _save(path: Path, voice: VoiceClonePromptItem) -> None:
    """Write the arrays, then the .json that makes the voice exist."""
    codes = np.zeros((0,), np.int32) if voice.ref_code is None else voice.ref_code
    arrays: dict[str, Any] = {"codes": codes, "embedding": voice.ref_spk_embedding}
    if (decoder := voice.decoder_voice) is not None:
        arrays |= {"decoder_xvector": decoder.xvector, "decoder_mel": decoder.ref_mel}
    np.savez(path.with_suffix(".npz"), **arrays)
    facts = {"ref_text": voice.ref_text, "x_vector_only": voice.x_vector_only_mode}
    write_whole(path, json.dumps(facts, ensure_ascii=False).encode())


def _load(path: Path) -> VoiceClonePromptItem:
    facts = json.loads(path.read_text(encoding="utf-8"))
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
        codes, embedding, decoder = arrays["codes"], arrays["embedding"], None
        if "decoder_xvector" in arrays:
            decoder = ReferenceVoice(arrays["decoder_xvector"], arrays["decoder_mel"])
    timbre = bool(facts["x_vector_only"])
    return VoiceClonePromptItem(
        None if timbre else codes, embedding, timbre, not timbre, facts["ref_text"], decoder
    )
