"""More voices from few: clips played at another rate, which moves pitch, formants and pace."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.corpus.synthesis.cpu_worker import RATE, resample, write_audio
from qtts_jax.data.splits import TRAIN

Row = dict[str, Any]

FOLDER = "audio/varied"
# Semitones; more of them would no longer be voices that a person could have.
SHIFTS = (-3.0, -1.5, 1.5, 3.0)
# Of a synthetic voice, of which any number could be made: enough to train the speaker encoder.
SYNTHETIC_CLIPS = 70


def varied_rows(rows: Iterable[Row]) -> Iterator[tuple[Row, Row]]:
    """Each row that trains with those of its variations, which have no person's name.

    Drawn voices (`derived`) are many already.
    """
    taken: Counter[str] = Counter()
    for row in rows:
        if row["split"] != TRAIN or row.get("derived"):
            continue
        if taken[row["speaker"]] == SYNTHETIC_CLIPS:
            continue
        taken[row["speaker"]] += bool(row["synthetic"])
        for shift in SHIFTS:
            name = f"{Path(row['audio']).stem}{shift:+g}.flac"
            yield (
                row,
                row
                | {
                    "audio": f"{FOLDER}/{name}",
                    "speaker": f"{row['speaker']}{shift:+g}",
                    "speed": round(row.get("speed", 1.0) * 2 ** (shift / 12), 4),
                    "derived": True,
                    "semitones": shift,
                },
            )


def vary(source: Path, target: Path, shift: float) -> None:
    """Write the variation of a clip."""
    import soundfile

    wave, rate = soundfile.read(source, dtype="float32")
    write_audio(target, resample(wave, round(rate * 2 ** (shift / 12)), RATE))


def vary_clips(corpus: Path, rows: Iterable[Row], workers: int) -> Sequence[Path]:
    """Write the variations that are missing of clips that are there, in parallel processes."""
    (corpus / FOLDER).mkdir(parents=True, exist_ok=True)
    written = []
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        waiting = {}
        for row, varied in varied_rows(rows):
            source, target = corpus / row["audio"], corpus / varied["audio"]
            if source.exists() and not target.exists():
                waiting[target] = pool.submit(vary, source, target, varied["semitones"])
        for target, future in tqdm(waiting.items(), "vary", unit="clip", mininterval=5):
            future.result()
            written.append(target)
    return written
