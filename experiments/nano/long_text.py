"""Do voice, words or memory change over ten minutes of one text?

    python -m experiments.nano.long_text --minutes 10 --out experiments/results/long_text

streams the prose and the paragraphs of `everyday.jsonl`, again and again, as one request of the
shipped checkpoint (or `--model`), and writes NAME.json and NAME.md: for every minute the speaker
similarity of pieces of about 25 s to the first piece, with a 95 % bootstrap interval, words that
Whisper base transcribes otherwise than the text has them (over the whole), and the resident memory
of the process. About 4 minutes on 2 CPU cores for 10 of speech. Expected: similarity of the last
minute within the intervals of the others, memory level after the first minute.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments import command
from experiments.nano.everyday import LANGUAGE, TESTS, read_tests, readings, spoken_words
from qtts_jax.embedded import DIRECTORY
from qtts_jax.evaluation.bootstrap import estimate
from qtts_jax.evaluation.judges.speaker import SpeakerJudge
from qtts_jax.evaluation.judges.whisper import WhisperJudge
from qtts_jax.evaluation.sample import load_mono_16k
from qtts_jax.evaluation.words import edits
from qtts_jax.io.atomic_files import write_whole
from qtts_jax.tts.qwen_tts import QwenTTS
from qtts_jax.tts.voices import CustomVoice

LETTERS_A_SECOND = 15  # of English, about
SHORTEST, LONGEST = 20, 28  # seconds of a piece; Whisper takes 30


def long_text(path: Path, minutes: float) -> str:
    """Prose and paragraphs of the everyday tests, repeated for about `minutes` of speech."""
    texts = [t["text"] for t in read_tests(path) if t["kind"] in ("prose", "paragraphs")]
    chosen: list[str] = []
    while sum(map(len, chosen)) < minutes * 60 * LETTERS_A_SECOND:
        chosen.append(texts[len(chosen) % len(texts)])
    return "\n\n".join(chosen)


def pieces(wave: np.ndarray, rate: int) -> Iterator[np.ndarray]:
    """A wave [T] in pieces of 20 to 28 s, cut where it is quietest."""
    step = rate // 50  # 20 ms
    while len(wave) > LONGEST * rate:
        power = np.square(wave[SHORTEST * rate : LONGEST * rate])
        quietest = int(np.argmin(power[: len(power) // step * step].reshape(-1, step).sum(axis=1)))
        cut = SHORTEST * rate + quietest * step + step // 2
        yield wave[:cut]
        wave = wave[cut:]
    if len(wave):
        yield wave


def resident_megabytes() -> float:
    """Resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def speak(tts: QwenTTS, text: str, speaker: str | None, seed: int) -> dict[str, Any]:
    """Stream a text as one request.

    Returns:
        `wave` [T], `megabytes` at the begin of every minute of it, `seconds` of work.
    """
    request = CustomVoice(text, speaker, LANGUAGE, seed=seed)
    samples, waves, megabytes = 0, [], []
    begin = time.perf_counter()
    with tqdm(desc="speak", unit=" s") as bar:
        for chunk in tts.stream(request):
            # Kept in half the width, so that the wave itself takes little of what is measured.
            waves.append((chunk.clip(-1, 1) * 32767).astype(np.int16))
            samples += len(chunk)
            bar.update(len(chunk) / tts.sample_rate)
            if samples >= len(megabytes) * 60 * tts.sample_rate:
                megabytes.append(resident_megabytes())
    seconds = time.perf_counter() - begin
    wave = np.concatenate(waves).astype(np.float32) / 32767
    return {"wave": wave, "megabytes": megabytes, "seconds": seconds}


def score(args: argparse.Namespace) -> None:
    """Speak, judge and write.

    Raises:
        QTTSError: the model or a package is missing.
    """
    tts = QwenTTS.from_pretrained(args.model)
    whisper, likeness = WhisperJudge(), SpeakerJudge()
    text, speaker = long_text(TESTS, args.minutes), args.speaker or tts.default_speaker
    speech = speak(tts, text, speaker, args.seed)
    transcripts, similarity = [], []
    first: np.ndarray | None = None
    begin, rate = 0.0, tts.sample_rate
    for piece in tqdm(list(pieces(speech["wave"], rate)), "judge"):
        wave = load_mono_16k((piece, rate))
        transcripts.append(whisper.transcribe(wave, LANGUAGE))
        embedding = likeness.embed(wave)
        if first is None:
            first = embedding
        else:
            similarity.append((int(begin // 60), float(embedding @ first)))
        begin += len(piece) / rate
    wanted = spoken_words(text)
    errors = edits(wanted, spoken_words(readings(" ".join(transcripts))[1]))
    minutes = []
    for minute in sorted({m for m, _ in similarity}):
        values = [(value, 1.0) for m, value in similarity if m == minute]
        memory = speech["megabytes"][min(minute, len(speech["megabytes"]) - 1)]
        minutes.append({"minute": minute + 1, "megabytes": memory, **asdict(estimate(values))})
    data = {
        "model": args.model.name,
        "speaker": speaker,
        "seed": args.seed,
        "seconds_of_speech": len(speech["wave"]) / rate,
        "seconds_of_work": speech["seconds"],
        "words": len(wanted),
        "words_wrong_percent": 100 * errors / len(wanted),
        "minutes": minutes,
    }
    table = markdown(data)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(args.out.with_suffix(".json"), (json.dumps(data, indent=1) + "\n").encode())
    write_whole(args.out.with_suffix(".md"), table.encode())
    print(table)


def markdown(data: dict[str, Any]) -> str:
    """The table by minute."""
    lines = [
        f"# One text of {data['seconds_of_speech'] / 60:.0f} minutes: {data['model']}, "
        f"{data['speaker']}",
        "",
        f"{data['words_wrong_percent']:.1f} % of {data['words']} words transcribed otherwise; "
        f"streamed in {data['seconds_of_work']:.0f} s of work.",
        "",
        "| minute | similarity to the first piece | 95 % interval | resident memory, MB |",
        "|--:|--:|---|--:|",
    ]
    for m in data["minutes"]:
        lines.append(
            f"| {m['minute']} | {m['value']:.3f} | {m['low']:.3f} to {m['high']:.3f} | "
            f"{m['megabytes']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Score a long text."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--model", type=Path, default=DIRECTORY, help="a checkpoint folder")
    parser.add_argument("--minutes", type=float, default=10.0, help="of speech")
    parser.add_argument("--speaker", help="preset speaker; the checkpoint's default if none")
    parser.add_argument("--seed", type=int, default=0, help="of the request")
    parser.add_argument("--out", type=Path, required=True, help="result files, without suffix")
    score(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
