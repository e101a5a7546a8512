"""From laid-out requests to audio: whole utterances in a batch, or one in chunks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from qtts_jax.audio_stream import AudioStream
from qtts_jax.config import TTSConfig
from qtts_jax.functional import Params
from qtts_jax.generation.loops import Request, Session, chunk_schedule, generate_codes
from qtts_jax.speech_tokenizer import SpeechTokenizer


@dataclass(frozen=True)
class Speech:
    """What one request gave.

    Attributes:
        codes: [T, Q] int32, the generated frames (without reference frames).
        wave: [samples] float32 in [-1, 1].
    """

    codes: np.ndarray
    wave: np.ndarray


def synthesize(
    config: TTSConfig,
    params: Params,
    tokenizer: SpeechTokenizer,
    requests: Sequence[Request],
) -> list[Speech]:
    """Generate a batch of requests of any lengths and settings, whole.

    Raises:
        RequestError: a prompt is longer than the model's context.
    """
    codes = generate_codes(Session(config, params, requests))
    waves = _decode(tokenizer, requests, codes)
    return [Speech(c, w) for c, w in zip(codes, waves, strict=True)]


def _decode(
    tokenizer: SpeechTokenizer, requests: Sequence[Request], codes: list[np.ndarray]
) -> list[np.ndarray]:
    """Audio of the generated frames; in-context clones are decoded after their reference."""
    waves = [np.zeros((0,), np.float32)] * len(codes)
    rows = [i for i, c in enumerate(codes) if len(c)]
    references = [requests[i].reference for i in rows]
    joined = [
        codes[i] if r is None else np.concatenate([r, codes[i]])
        for i, r in zip(rows, references, strict=True)
    ]
    for i, r, wave in zip(
        rows, references, tokenizer.decode(joined)[0] if rows else [], strict=True
    ):
        cut = 0
        if r is not None and tokenizer.quirks.proportional_cut:
            cut = int(len(r) / (len(r) + len(codes[i])) * len(wave))
        elif r is not None:
            cut = len(r) * tokenizer.samples_per_frame
        waves[i] = wave[cut:]
    return waves


def stream(
    config: TTSConfig,
    params: Params,
    tokenizer: SpeechTokenizer,
    request: Request,
    chunk_frames: Sequence[int],
    arriving: Iterator[list[int]] | None = None,
) -> Iterator[np.ndarray]:
    """Audio chunks of one request.

    Args:
        arriving: text ids still to come; frames wait for them. With the whole text there,
            the device works one chunk ahead of the one being handed out.
    """
    session = Session(config, params, [request], open_text=arriving is not None)
    audio = AudioStream(tokenizer, reference=request.reference)
    in_flight: deque[tuple[int, jax.Array, list[jax.Array]]] = deque()
    schedule = chunk_schedule(chunk_frames[:-1], chunk_frames[-1])
    while in_flight or not session.exhausted:
        if not session.exhausted:
            frames = min(next(schedule), session.frames_left)
            while arriving is not None and session.text_left < frames:
                ids = next(arriving, None)
                if ids is None:
                    arriving = None
                    break
                session.append_text(ids)
                if session.text_left > 0:
                    break
            if arriving is not None:
                frames = min(frames, session.text_left)
            codes = session.advance(frames)
            in_flight.append((frames, codes, audio.feed(codes, frames)))
            if arriving is None and len(in_flight) < 2 and not session.exhausted:
                continue
        frames, codes, waves = in_flight.popleft()
        made = int(np.sum(np.asarray(codes)[0, :frames, 0] >= 0))
        if made:
            wave = np.concatenate([np.asarray(w[0], np.float32) for w in waves])
            yield wave[: made * tokenizer.samples_per_frame]
        if made < frames:
            return
