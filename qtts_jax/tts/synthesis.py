"""From prepared requests to audio: whole utterances in a batch, or one utterance in chunks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import Params
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import Session, check_finite, generate_codes
from qtts_jax.speech_tokenizer.base import SpeechTokenizer

# Audio in chunks, writable float32 [n]; the return value of the generator is `Speech.ended`.
Chunks = Generator[np.ndarray, None, bool]


@dataclass(frozen=True)
class Speech:
    """The result of one request.

    Attributes:
        codes: [T, Q] int32 ([T] at 25 Hz), the generated frames (without reference frames).
        wave: [samples] float32 in [-1, 1].
        ended: the model ended the speech; False when it was cut at the last frame that
            `max_new_tokens` or the context allows (generation stops there without checking whether
            the end of speech would have been next).
    """

    codes: np.ndarray
    wave: np.ndarray
    ended: bool


def synthesize(
    config: TTSConfig,
    params: Params,
    tokenizer: SpeechTokenizer,
    requests: Sequence[Request],
) -> list[Speech]:
    """Generate a batch of requests of any lengths and settings, whole.

    Raises:
        RequestError: there is no request, a prompt is longer than the model's context, or a decoder
            that needs a voice has none.
        GenerationError: logits are NaN or infinite.
    """
    session = Session(config, params, requests)
    codes = generate_codes(session)
    waves = _decode(tokenizer, requests, codes)
    shape = (-1,) if tokenizer.codebooks == 1 else (-1, tokenizer.codebooks)
    return [
        Speech(c.reshape(shape), w, len(c) < limit)
        for c, w, limit in zip(codes, waves, session.limits, strict=True)
    ]


def _decode(
    tokenizer: SpeechTokenizer, requests: Sequence[Request], codes: list[np.ndarray]
) -> list[np.ndarray]:
    """Audio of the generated frames; in-context clones are decoded after their reference."""
    waves = [np.zeros((0,), np.float32)] * len(codes)
    rows = [i for i, c in enumerate(codes) if len(c)]
    if not rows:
        return waves
    references = [requests[i].reference for i in rows]
    joined = [
        codes[i] if r is None else np.concatenate([r, codes[i]])
        for i, r in zip(rows, references, strict=True)
    ]
    decoded = tokenizer.decode_requests(joined, [requests[i] for i in rows])
    for i, r, wave in zip(rows, references, decoded, strict=True):
        cut = 0
        if r is not None:
            cut = tokenizer.reference_samples(len(r), len(r) + len(codes[i]), len(wave))
        waves[i] = wave[cut:]
    return waves


def stream(
    config: TTSConfig,
    params: Params,
    tokenizer: SpeechTokenizer,
    wait: Callable[[], tuple[Request, Iterator[list[int]] | None]],
    chunk_frames: Sequence[int],
) -> Chunks:
    """Audio chunks of one request; the return value is `Speech.ended`.

    Args:
        wait: returns the request and the text ids still to come, or None with the whole text
            (`RequestBuilder.open`). Frames wait for their text. Once the whole text is known, the
            device works one chunk ahead of the one being returned, from the second chunk on.
        chunk_frames: frames of the first chunks; the last number is repeated. Where arriving text
            does not suffice for a chunk, its frames are generated one by one.

    Raises:
        GenerationError: logits are NaN or infinite; the chunks before have been yielded.
    """
    request, arriving = wait()
    session = Session(config, params, [request], open_text=arriving is not None)
    running = tokenizer.open_stream(session, [request])
    sizes = list(chunk_frames)
    in_flight: deque[tuple[jax.Array, jax.Array]] = deque()
    made = 0
    ahead = 1  # the first chunk is not delayed by a second one
    exhausted = session.exhausted
    while in_flight or not exhausted:
        if not exhausted:
            frames = sizes.pop(0) if len(sizes) > 1 else sizes[0]
            while arriving is not None and session.text_left < 1:
                ids = next(arriving, None)
                if ids is None:
                    arriving = None
                else:
                    session.append_text(ids)
            if arriving is not None and session.text_left < frames:
                frames = 1
            in_flight.append(running.advance(frames))
            exhausted = session.exhausted
            if arriving is None and len(in_flight) < ahead and not exhausted:
                continue
        device_codes, wave = in_flight.popleft()
        codes = np.asarray(device_codes)
        check_finite(codes[:1])
        ahead = 2
        made += int(np.sum(codes[0, :, 0] >= 0))
        samples = running.collect(codes, wave)
        if len(samples):
            yield samples
        if codes[0, -1, 0] < 0:
            break
    samples = running.flush([wave for _, wave in in_flight])
    if len(samples):
        yield samples
    return made < session.limits[0]
