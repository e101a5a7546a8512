"""From prepared requests to audio: whole utterances in a batch, or one utterance in chunks."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.device_memory import check_memory
from qtts_jax.functional import Params
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import Session, check_finite, generate_codes
from qtts_jax.placement import fetch
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
from qtts_jax.tts.joining import Joiner
from qtts_jax.tts.requests import Arriving, OpenPart

# What shortens the caches, for a device whose memory does not suffice.
_MEMORY_REMEDY = (
    "speak fewer or shorter texts at once (split=True parts long ones), set a smaller "
    "max_new_tokens, or load the model with int8 weights"
)
# Audio in chunks, writable float32 [n]; the return value of the generator is `Speech.ended`.
Chunks = Generator[np.ndarray, None, bool]


@dataclass(frozen=True)
class SpokenPart:
    """One part of a text and its place in the result.

    Attributes:
        text: what was spoken, normalised if the checkpoint wants it so.
        begin, end: samples of the wave; the audio of a part has silence at both ends.
        frames: frames of the part.
    """

    text: str
    begin: int
    end: int
    frames: int


@dataclass(frozen=True)
class Speech:
    """The result of one request.

    Attributes:
        codes: [T, Q] int32 ([T] at 25 Hz), the generated frames (without reference frames), those
            of all parts of a long text in order.
        wave: [samples] float32 in [-1, 1]; between the parts of a long text it holds pauses that
            have no codes.
        ended: the model ended the speech; False when it was cut at the last frame that
            `stopped_by` allows (generation stops there without checking whether the end of speech
            would have been next).
        stopped_by: "max_new_tokens", "context" (the model's longest sequence) or "guard" (see
            `runaway_guard`) for speech that was cut, of the first such part; None if it ended.
        seed: of the request, drawn where it named none; None for `synthesize`.
        parts: texts and times of the parts; empty for `synthesize`.
    """

    codes: np.ndarray
    wave: np.ndarray
    ended: bool
    stopped_by: str | None = None
    seed: int | None = None
    parts: tuple[SpokenPart, ...] = ()


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
        DeviceMemoryError: the batch does not fit in the device's memory.
    """
    try:
        codes = generate_codes(Session(config, params, requests))
        return decode(config, tokenizer, requests, codes)
    except jax.errors.JaxRuntimeError as error:
        check_memory(error, f"{len(requests)} texts at once", _MEMORY_REMEDY)
        raise


def decode(
    config: TTSConfig,
    tokenizer: SpeechTokenizer,
    requests: Sequence[Request],
    codes: list[np.ndarray],
) -> list[Speech]:
    """The results of requests whose frames have been generated.

    Args:
        codes: int32 [T, Q] of each request.

    Raises:
        RequestError: a decoder that needs a voice has none.
    """
    waves = _decode(tokenizer, requests, codes)
    shape = (-1,) if tokenizer.codebooks == 1 else (-1, tokenizer.codebooks)
    context = config.talker.context
    speeches = []
    for request, c, w in zip(requests, codes, waves, strict=True):
        limit, reason = request.limit(context)
        ended = len(c) < limit
        speeches.append(Speech(c.reshape(shape), w, ended, None if ended else reason))
    return speeches


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


def stream_parts(
    config: TTSConfig,
    params: Params,
    tokenizer: SpeechTokenizer,
    parts: Iterator[OpenPart],
    chunk_frames: Sequence[int],
    voice_of: Callable[[np.ndarray], VoiceClonePromptItem | None] | None = None,
) -> Chunks:
    """Audio chunks of one request, part after part; the return value is `Speech.ended`.

    Memory does not grow with the number of parts. A part that the runaway guard cuts is reported by
    a warning.

    Args:
        parts: of `RequestBuilder.open_parts`.
        chunk_frames: as of `stream`, for each part.
        voice_of: the voice of the first part's audio, with which the further parts are spoken; None
            where the request names a voice.

    Raises:
        GenerationError: logits are NaN or infinite; the chunks before have been yielded.
        DeviceMemoryError: the device's memory does not suffice.
    """
    joiner, ended = None, True
    first: list[np.ndarray] = []
    voice: VoiceClonePromptItem | None = None
    try:
        for part in parts:
            if joiner is None and not part.only:
                joiner = Joiner(tokenizer.sample_rate)
            if joiner is not None and part.pause is not None:
                joiner.pause(part.pause)
                if voice_of is not None and first:
                    voice, first = voice_of(np.concatenate(first)), []
            chunks = stream(config, params, tokenizer, partial(part.wait, voice), chunk_frames)
            while True:
                try:
                    chunk = next(chunks)
                except StopIteration as end:
                    stopped_by = end.value
                    break
                if voice_of is not None and part.pause is None and not part.only:
                    first.append(chunk.copy())
                samples = chunk if joiner is None else joiner.push(chunk)
                if len(samples):
                    yield samples
            if stopped_by == "guard":
                warnings.warn(
                    "the speech went on far longer than its text can take and was cut; another "
                    "seed may help, and max_new_tokens sets the limit yourself.",
                    stacklevel=2,
                )
            ended = ended and stopped_by is None
    except jax.errors.JaxRuntimeError as error:
        check_memory(error, "the stream", _MEMORY_REMEDY)
        raise
    if joiner is not None:
        samples = joiner.finish()
        if len(samples):
            yield samples
    return ended


def stream(
    config: TTSConfig,
    params: Params,
    tokenizer: SpeechTokenizer,
    wait: Callable[[], Arriving],
    chunk_frames: Sequence[int],
) -> Generator[np.ndarray, None, str | None]:
    """Audio chunks of one part; the return value is `Speech.stopped_by`.

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
    sizes, budget = list(chunk_frames), request.budget
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
                    if arriving.budget is not None:
                        budget = arriving.budget
                        session.bound_frames(budget)
                    arriving = None
                else:
                    session.append_text(ids)
            if arriving is not None and session.text_left < frames:
                frames = 1
            made_now = running.advance(frames)
            for array in made_now:
                array.copy_to_host_async()  # both at once, as soon as they are there
            in_flight.append(made_now)
            exhausted = session.exhausted
            if arriving is None and len(in_flight) < ahead and not exhausted:
                continue
        codes, wave = fetch(in_flight.popleft())
        ended = codes[0, -1, 0] < 0
        if ended:  # perhaps by logits that are not finite
            check_finite(codes[:1])
        ahead = 2
        made += int(np.sum(codes[0, :, 0] >= 0))
        samples = running.collect(codes, wave)
        if len(samples):
            yield samples
        if ended:
            break
    samples = running.flush([wave for _, wave in in_flight])
    if len(samples):
        yield samples
    if made < session.limits[0]:
        return None
    return replace(request, budget=budget).limit(config.talker.context)[1]
