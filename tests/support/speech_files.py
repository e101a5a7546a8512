"""A small corpus of tones on disk, and a text tokenizer for it."""

import json
import os
import subprocess
import sys

import numpy as np
import soundfile

from qtts_jax.text.bpe import TextTokenizer

RATE = 8000
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def tone(hertz, seconds, rate=RATE):
    """A voice-like tone: decreasing harmonics, float32 in [-0.5, 0.5]."""
    t = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 6))
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def corpus(directory, clips=12, rate=RATE, **fields):
    """Write `clips` tones of three speakers and their manifest; the path of the manifest."""
    lines = []
    for i in range(clips):
        speaker = i % 3
        name = f"clip{i}.wav"
        soundfile.write(directory / name, tone(100 + 60 * speaker + i, 0.4 + 0.05 * i, rate), rate)
        lines.append({
            "audio": name,
            "text": f"{WORDS[i % 10]} {WORDS[i * 7 % 10]} and {i}",
            "speaker": f"speaker{speaker}",
            "language": "english",
            "source": "tones",
            **fields,
        })  # fmt: skip
    return write_manifest(directory, lines)


def write_manifest(directory, lines):
    path = directory / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def half_written(directory, name):
    """What is left in a directory by a process that was killed while it wrote a file; its path."""
    script = (
        "import os, pathlib, signal, sys\n"
        "import qtts_jax.io.atomic_files as files\n"
        "files.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_whole(pathlib.Path(sys.argv[1]), b'half')\n"
    )
    before = set(directory.iterdir())
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    target = str(directory / name)
    killed = subprocess.run([sys.executable, "-c", script, target], env=environment, check=False)
    assert killed.returncode < 0
    (path,) = set(directory.iterdir()) - before
    return path


def byte_tokenizer(leave_out=""):
    """Every byte is a token, but the byte-level symbols of `leave_out`; and the chat strings."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    symbols = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
    vocab = {s: i for i, s in enumerate(symbols) if s not in leave_out}
    merges, word = [], "a"
    for letter in "ssistant":
        merges.append((word, letter))
        word += letter
        vocab[word] = 300 + len(word)
    return TextTokenizer(vocab, merges, {"<|im_start|>": 400, "<|im_end|>": 401})
