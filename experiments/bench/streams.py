"""Requests of one prompt length, and the times of their streams."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments import command
from qtts_jax import QwenTTS
from qtts_jax.generation.session import Session
from qtts_jax.speech_tokenizer.stream import SpeechStream

PROMPT = 51
FRAME_SECONDS = 0.08
CHUNK, BATCH_CHUNK = 4, 16


def prompt_text(tts: QwenTTS) -> str:
    """Text that makes a prompt of PROMPT positions."""
    text = "a"
    while len(tts.prepare_custom_voice(text, "ryan", "english", seed=0).prompt) < PROMPT:
        text += " b" if len(text) % 3 else "c"
    return text


def request(tts: QwenTTS, seed: int, frames: int, text: str | None = None) -> Any:
    text = text or prompt_text(tts)
    return tts.prepare_custom_voice(text, "ryan", "english", seed=seed, max_new_tokens=frames + 1)


def timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def start(tts: QwenTTS, seeds: range, frames: int) -> SpeechStream:
    text = prompt_text(tts)  # once, since it takes a while
    requests = [request(tts, i, frames, text) for i in seeds]
    session = Session(tts.config, tts.params, requests)
    return tts.speech_tokenizer.open_stream(session, requests)


def run_stream(stream: SpeechStream, chunks: int, frames: int) -> list[np.ndarray]:
    """Generate chunks and copy their audio to the host, one chunk in flight; returns the codes."""
    waiting, codes = None, []
    for _ in range(chunks):
        made, wave = stream.advance(frames)
        codes.append(made)
        if waiting is not None:
            np.asarray(waiting)
        waiting = wave
    np.asarray(waiting)
    return [np.asarray(c) for c in codes]


def steady_ms(tts: QwenTTS, rows: int, chunk: int, frames: int) -> float:
    """Milliseconds a frame, streaming audio to the host."""
    stream = start(tts, range(rows), 3 * frames + 4 * chunk)
    run_stream(stream, 2, chunk)
    chunks = frames // chunk
    runs = [timed(lambda: run_stream(stream, chunks, chunk)) for _ in range(3)]
    return statistics.median(runs) * 1e3 / (chunks * chunk)


def first_audio_ms(tts: QwenTTS, repeats: int) -> float:
    """Text string in, first chunk of one frame on the host (median)."""
    text = prompt_text(tts)

    def once() -> None:
        next(tts.stream_custom_voice(text, "ryan", "english", seed=1, chunk_frames=(1, CHUNK)))

    once()
    return statistics.median(timed(once) for _ in range(repeats)) * 1e3


if __name__ == "__main__":
    raise SystemExit(
        command.exit_status_of_library(
            __file__, "experiments.bench.decode", "experiments.bench.sharded"
        )
    )
