"""Real speech: the Asterisk prompts, one professional speaker for each of five languages."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.corpus.packages import ASTERISK_LICENCES
from experiments.corpus.split import UNSEEN_LANGUAGES, corpus_split
from experiments.corpus.synthesis.cpu_worker import RATE as OPUS_RATE
from experiments.corpus.synthesis.cpu_worker import trim, write_audio
from qtts_jax.data.splits import TRAIN
from qtts_jax.io.resample import resample

LANGUAGES = {"en": "english", "es": "spanish", "fr": "french", "it": "italian", "ru": "russian"}
RATE = 16000
SHORTEST_SECONDS, LONGEST_SECONDS = 0.4, 30.0
BYTES_A_SECOND = 8000  # of G.722 at 64 kbit/s

Clip = dict[str, Any]


def transcripts(folder: Path, code: str) -> dict[str, str]:
    """Prompt name -> what is spoken; sounds without words (`[a beep]`) are left out."""
    name = f"asterisk-core-sounds-{code}"
    path = folder / name / f"usr/share/doc/{name}/core-sounds-{code}.txt.gz"
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
        return parse(file.read())


def parse(text: str) -> dict[str, str]:
    """`name: words` a line; comments (`;`) and damaged lines (`?` for a letter) are left out."""
    found = {}
    for line in text.splitlines():
        name, colon, words = line.partition(":")
        words = words.strip().removeprefix(f"{name}:").strip(' "“”')
        if not colon or line.startswith(";") or not words:
            continue
        if re.search(r"[\[\]()<>*\ufffd]|\s\?\s|\w\?\w", words):
            continue
        found[name.strip()] = words
    return found


def plan(folder: Path) -> Iterator[tuple[Path, Clip]]:
    """(G.722 file, manifest fields) of every prompt with a transcript."""
    for code, language in LANGUAGES.items():
        words = transcripts(folder, code)
        sounds = folder / f"asterisk-core-sounds-{code}-g722" / "usr/share/asterisk/sounds"
        for path in sorted(sounds.rglob("*.g722")):
            name = "/".join(path.relative_to(sounds).with_suffix("").parts[1:])
            seconds = path.stat().st_size / BYTES_A_SECOND
            if name not in words or not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
                continue
            split = corpus_split(words[name], language=language)
            suffix = "ogg" if split == TRAIN else "flac"
            clip_id = f"asterisk-{code}-{name.replace('/', '-')}"
            yield (
                path,
                {
                    "audio": f"audio/asterisk/{clip_id}.{suffix}",
                    "text": words[name],
                    "speaker": f"asterisk-{code}",
                    "language": language,
                    "source": path.relative_to(folder).parts[0],
                    "licence": ASTERISK_LICENCES[code],
                    "synthetic": False,
                    "split": split,
                    "unseen_speaker": language in UNSEEN_LANGUAGES,
                },
            )


def decode(path: Path) -> np.ndarray:
    """A raw G.722 file as float32 [T] at 16 kHz."""
    import av

    with av.open(str(path), format="g722") as container:
        frames = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.float32) / 32768


def convert(path: Path, target: Path) -> None:
    """Write a prompt as Opus at 24 kHz (`.ogg`) or, without loss, as FLAC at 16 kHz (`.flac`)."""
    import soundfile

    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    wave = trim(decode(path), RATE)
    if target.suffix == ".ogg":
        write_audio(target, resample(wave, RATE, OPUS_RATE))
        return
    partial = target.with_name(f".{target.name}.partial")
    with open(partial, "wb") as file:
        soundfile.write(file, wave, RATE, format="FLAC", subtype="PCM_16")
    os.replace(partial, target)
