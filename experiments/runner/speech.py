"""Library of the ablations: a small corpus that the shipped voice speaks, for machines without one.

Sentences are drawn from a small grammar and spoken by four preset voices, with fixed seeds: 64
clips of about 2.8 s, 52 to train and 12 to test, with different sentences.

    OUT/manifest.jsonl, OUT/*.flac    recordings
    OUT/dataset                       the prepared dataset
    OUT/teacher.npz                   features of the semantic teacher, of the training clips

Whisper is in no plain install. The teacher is the shipped tokenizer instead, whose codebook 0 was
trained to follow Whisper: a feature is the entry of codebook 0 of a frame, 64 numbers.
"""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path

import numpy as np
import soundfile

from experiments import command
from experiments.runner.teacher import store
from qtts_jax import QwenTTS, data
from qtts_jax.data.dataset import to_int16
from qtts_jax.embedded import DIRECTORY
from qtts_jax.io.atomic_files import sweep, write_whole
from qtts_jax.speech_tokenizer.base import FOLDER, SpeechTokenizer
from qtts_jax.tts.voices import CustomVoice

SPEAKERS = ("af_heart", "am_michael", "bf_emma", "am_puck")
SPLITS = {"train": 52, "test": 12}
SUBJECTS = ("My brother", "The old sailor", "A young doctor", "Our neighbour", "The teacher",
            "Her uncle", "The farmer", "A tall woman", "The driver", "His sister")  # fmt: skip
VERBS = ("found", "painted", "sold", "opened", "carried", "washed", "dropped", "remembered")
OBJECTS = ("the blue door", "a small boat", "seven letters", "the kitchen table", "an empty box",
           "the yellow coat", "some fresh bread", "a broken chair")  # fmt: skip
PLACES = ("by the river", "before lunch", "in the garden", "last winter", "near the station",
          "after the storm", "on Sunday", "at noon")  # fmt: skip
LONGEST_SECONDS = 6.0


def sentences(count: int) -> list[str]:
    """The first `count` different sentences of a fixed random order."""
    draw = random.Random(0)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(map(draw.choice, (SUBJECTS, VERBS, OBJECTS, PLACES))) + "."] = None
    return list(found)


def make_speech(directory: Path) -> data.Dataset:
    """Speak, or go on where an earlier call was stopped; the prepared dataset."""
    prepared = directory / "dataset"
    if not prepared.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        sweep(directory)
        data.prepare(_speak(directory), prepared, progress=False)
    dataset = data.Dataset(prepared)
    if not (directory / "teacher.npz").is_file():
        store(directory / "teacher.npz", _teacher(dataset))
    return dataset


def _speak(directory: Path) -> Path:
    """Write the recordings that are missing and their manifest, last; its path."""
    texts = sentences(sum(SPLITS.values()))
    splits = [name for name, count in SPLITS.items() for _ in range(count)]
    missing = [i for i in range(len(texts)) if not (directory / f"{i:03d}.flac").is_file()]
    tts = QwenTTS.from_pretrained(dtype="float32") if missing else None
    batch = 16
    for start in range(0, len(texts), batch):
        rows = [i for i in missing if start <= i < start + batch]
        if not rows:
            continue
        assert tts is not None
        # The whole batch, so that the recordings do not depend on where an earlier call stopped.
        requests = [
            CustomVoice(texts[i], SPEAKERS[i % len(SPEAKERS)], "english", seed=i)
            for i in range(start, min(start + batch, len(texts)))
        ]
        for i, speech in enumerate(tts.generate(requests), start):
            wave = speech.wave[: int(LONGEST_SECONDS * tts.sample_rate)]
            file = io.BytesIO()
            soundfile.write(file, to_int16(wave), tts.sample_rate, format="FLAC", subtype="PCM_16")
            write_whole(directory / f"{i:03d}.flac", file.getvalue())
    lines = [
        {"audio": f"{i:03d}.flac", "text": text, "speaker": SPEAKERS[i % len(SPEAKERS)],
         "language": "english", "split": split, "synthetic": True, "source": "shipped voice"}
        for i, (text, split) in enumerate(zip(texts, splits, strict=True))
    ]  # fmt: skip
    manifest = directory / "manifest.jsonl"
    write_whole(manifest, "".join(json.dumps(line) + "\n" for line in lines).encode())
    return manifest


def _teacher(dataset: data.Dataset) -> data.Features:
    """Entries of codebook 0 of the training clips, standardized."""
    tokenizer = SpeechTokenizer.from_pretrained(DIRECTORY / FOLDER)
    book = tokenizer.params["encoder"]["quantizer"]["semantic"]
    entries = np.asarray(book["embed_sum"], np.float32)[0]
    entries = entries / np.asarray(book["usage"], np.float32)[0][:, None]  # [V, D]
    chosen = dataset.select("train")
    codes = tokenizer.encode([(dataset.wave(i), dataset.sample_rate) for i in chosen])
    starts = np.concatenate([[0], np.cumsum([len(c) for c in codes])])
    values = entries[np.concatenate([c[:, 0] for c in codes])]
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-6)
    return data.Features(chosen, tokenizer.samples_per_frame, starts, values)


def _make() -> None:
    make_speech(Path(sys.argv[2]))


def main() -> int:
    """Make the corpus in the folder named on the command line, in a process of its own."""
    if sys.argv[1:2] != ["--out"]:
        return command.exit_status_of_library(__file__, "experiments.run")
    return command.exit_status(__file__, _make)


if __name__ == "__main__":
    raise SystemExit(main())
