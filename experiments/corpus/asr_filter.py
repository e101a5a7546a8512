"""Transcripts of synthetic clips by Whisper, and the removal of clips whose words are wrong."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments.corpus.manifest import made_rows, planned_rows, read_wer
from experiments.corpus.synthesis.cpu_worker import end_cut_line
from qtts_jax.evaluation.sample import SAMPLE_RATE
from qtts_jax.evaluation.words import edits, words_of
from qtts_jax.io.audio import load_audio

Row = dict[str, Any]
Judge = Callable[[np.ndarray, str], str]

_transcriber: Judge | None = None


def word_error_rate(text: str, transcript: str, language: str) -> float:
    """Edits over the words of `text`; spaces within words do not count ("door bell")."""
    said, found = words_of(text, language), words_of(transcript, language)
    if "".join(said) == "".join(found):
        return 0.0
    return edits(said, found) / max(1, len(said))


def transcribe_corpus(
    corpus: Path, workers: int, engines: Sequence[str], clips: int | None = None
) -> None:
    """Append `{"audio", "transcript", "wer"}` to `wer.jsonl` for synthetic clips that it lacks.

    Args:
        workers: processes, each with a Whisper base of one thread.
        engines: synthesisers whose clips are transcribed.
        clips: only the first so many of each synthesiser that have been made; None for all.
    """
    file = corpus / "wer.jsonl"
    end_cut_line(file)
    known = read_wer(file)
    made = [row for row in made_rows(corpus, planned_rows(corpus)) if row["synthetic"]]
    chosen: list[Row] = []
    for engine in engines:
        chosen += [row for row in made if row["audio"].startswith(f"audio/{engine}/")][:clips]
    missing = [row for row in chosen if row["audio"] not in known]
    with open(file, "a", encoding="utf-8") as out:
        for line in tqdm(transcribe(corpus, missing, workers), "filter", len(missing), unit="clip"):
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            out.flush()


def transcribe(corpus: Path, rows: Sequence[Row], workers: int) -> Iterator[Row]:
    """The transcript and word error rate of each clip, as they come from parallel processes.

    Raises:
        EvaluationError: the package of the speech recogniser is missing.
        RuntimeError: a process died.
    """
    if not rows:
        return
    _start()  # here first, so that a package that is missing is one sentence
    tasks = [(str(corpus), row["audio"], row["text"], row["language"]) for row in rows]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(rows)), spawn, _start) as pool:
        try:
            for done in as_completed([pool.submit(_transcribe_one, task) for task in tasks]):
                yield done.result()
        except BrokenProcessPool:
            raise RuntimeError("a process that transcribes died; run again to go on") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start() -> None:
    global _transcriber
    from qtts_jax.evaluation.judges.whisper import WhisperJudge

    _transcriber = WhisperJudge(threads=1).transcribe


def _transcribe_one(task: tuple[str, str, str, str]) -> Row:
    corpus, audio, text, language = task
    assert _transcriber is not None
    transcript = _transcriber(load_audio(Path(corpus) / audio, SAMPLE_RATE), language)
    wer = round(word_error_rate(text, transcript, language), 4)
    return {"audio": audio, "transcript": transcript, "wer": wer}
