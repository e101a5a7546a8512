"""From laid-out requests to audio: whole utterances in a batch, or streams in chunks."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.configs.tokenizer_12hz import Quirks12Hz, Tokenizer12HzConfig
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import Params, abstract, bind, matmul_precision
from qtts_jax.generation.frame_step import SamplingPlan
from qtts_jax.generation.loops import Request, Session, generate_codes, run_frames
from qtts_jax.generation.state import DecodeInputs, GenerationState
from qtts_jax.models.tokenizer_12hz import DecoderState
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.speech_tokenizer.codec_12hz import SpeechTokenizer12Hz
from qtts_jax.speech_tokenizer.codec_25hz import SpeechTokenizer25Hz
from qtts_jax.speech_tokenizer.programs_12hz import programs as tokenizer_programs
from qtts_jax.speech_tokenizer.programs_12hz import split
from qtts_jax.tts.requests import SpeechRequest

# Audio in chunks, writable float32 [n]; what the generator returns is `Speech.ended`.
Chunks = Generator[np.ndarray, None, bool]


@dataclass(frozen=True)
class Speech:
    """What one request gave.

    Attributes:
        codes: [T, Q] int32 ([T] at 25 Hz), the generated frames (without reference frames).
        wave: [samples] float32 in [-1, 1].
        ended: the model ended the speech; False when all frames that `max_new_tokens` or the
            context allow were made before that (whether an end would have come next, nobody asks).
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
    if isinstance(tokenizer, SpeechTokenizer25Hz):
        voices = [decoder_voice(requests[i]) for i in rows]
        decoded, _ = tokenizer.decode(joined, voices, seed=[requests[i].seed for i in rows])
    else:
        decoded, _ = tokenizer.decode(joined)
    for i, r, wave in zip(rows, references, decoded, strict=True):
        cut = 0
        if r is not None:
            cut = tokenizer.reference_samples(len(r), len(r) + len(codes[i]), len(wave))
        waves[i] = wave[cut:]
    return waves


def decoder_voice(request: Request) -> Any:
    """The decoder's voice of a request, None if it has none."""
    return request.decoder_voice if isinstance(request, SpeechRequest) else None


class Stream:
    """A batch whose audio is made along with its frames: `Stream12Hz` or `Stream25Hz`.

    Only the first request may have an in-context reference, and then it must be alone; its
    frames are heard by the decoder first and not given out.
    """

    session: Session

    def __new__(
        cls, config: TTSConfig, params: Params, tokenizer: SpeechTokenizer, *_: Any, **__: Any
    ) -> Stream:
        if cls is Stream:
            cls = Stream25Hz if isinstance(tokenizer, SpeechTokenizer25Hz) else Stream12Hz
        return super().__new__(cls)

    def __init__(
        self,
        config: TTSConfig,
        params: Params,
        tokenizer: SpeechTokenizer,
        requests: Sequence[Request],
        *,
        open_text: bool = False,
    ) -> None:
        self.session = Session(config, params, requests, open_text=open_text)
        self._params = params

    def advance(self, frames: int) -> tuple[jax.Array, jax.Array]:
        """Ask the device for `frames` more frames, without waiting for them.

        Returns:
            codes [B, frames, Q] int32, -1 where a row has no frame, and samples [B, n] float32.
        """
        raise NotImplementedError

    def take(self, codes: np.ndarray, wave: jax.Array) -> np.ndarray:
        """The samples, a writable float32 [n], that the first request has of what `advance` gave.

        Args:
            codes, wave: its results in turn, the codes on the host.
        """
        raise NotImplementedError

    def rest(self, waves: Sequence[jax.Array] = ()) -> np.ndarray:
        """The samples float32 [n] of the first request that are left when its frames have ended.

        Args:
            waves: what `advance` gave and was not taken.
        """
        raise NotImplementedError


class Stream12Hz(Stream):
    """Frames and audio in one device program; the exact decoder state is carried."""

    def __init__(
        self,
        config: TTSConfig,
        params: Params,
        tokenizer: SpeechTokenizer12Hz,
        requests: Sequence[Request],
        *,
        open_text: bool = False,
    ) -> None:
        super().__init__(config, params, tokenizer, requests, open_text=open_text)
        self._decoder = tokenizer.part("decoder")
        self._samples_per_frame = tokenizer.samples_per_frame
        self._chunk = chunk_program(config, tokenizer.config)
        rows = self.session.conditions.pad.shape[0]
        self._audio = tokenizer.programs.decoder_state(self._decoder, rows)
        reference = requests[0].reference
        if reference is not None:
            start = 0
            for size in split(len(reference)):
                piece = reference[None, start : start + size]
                _, self._audio = tokenizer.programs.decode(self._decoder, piece, self._audio)
                start += size

    def advance(self, frames: int) -> tuple[jax.Array, jax.Array]:
        """See `Stream`; n is frames * samples per frame."""
        self.session.grow_cache(frames)
        codes, wave, self.session.state, self._audio = self._chunk(
            self._params,
            self._decoder,
            self.session.conditions,
            self.session.state,
            self._audio,
            methods=self.session.methods,
            frames=frames,
        )
        return codes, wave

    def take(self, codes: np.ndarray, wave: jax.Array) -> np.ndarray:
        """See `Stream`."""
        made = int(np.sum(codes[0, :, 0] >= 0))
        return np.asarray(wave)[0, : made * self._samples_per_frame].copy()

    def rest(self, waves: Sequence[jax.Array] = ()) -> np.ndarray:
        """Nothing: this decoder keeps nothing back."""
        return np.zeros((0,), np.float32)


class Stream25Hz(Stream):
    """Frames in one program and whole blocks of audio in another.

    The decoder looks ahead and fills blocks, so audio comes later than its frames: what a chunk
    gives depends on the blocks that it completes.
    """

    def __init__(
        self,
        config: TTSConfig,
        params: Params,
        tokenizer: SpeechTokenizer25Hz,
        requests: Sequence[Request],
        *,
        open_text: bool = False,
    ) -> None:
        super().__init__(config, params, tokenizer, requests, open_text=open_text)
        self._frames = _frames_program(config)
        rows = self.session.conditions.pad.shape[0]
        # Surplus rows of the batch are decoded like the last one, and nobody listens.
        last = [requests[-1]] * (rows - len(requests))
        self._blocks = tokenizer.blocks(
            [decoder_voice(r) for r in [*requests, *last]], [r.seed for r in [*requests, *last]]
        )
        self._samples_per_frame = tokenizer.samples_per_frame
        # Frames of the reference and of all that is known; the first sample that comes next.
        self._skip = self._known = 0
        self._at, self._ended = -self._blocks.delay, False
        reference = requests[0].reference
        if reference is not None:
            self._skip = self._known = len(reference)
            self._cut(self._blocks.push(reference[None, :, 0]))

    def advance(self, frames: int) -> tuple[jax.Array, jax.Array]:
        """See `Stream`; n depends on how many blocks are complete."""
        self.session.grow_cache(frames)
        codes, self.session.state = self._frames(
            self._params,
            self.session.conditions,
            self.session.state,
            methods=self.session.methods,
            frames=frames,
        )
        return codes, self._blocks.push(codes[..., 0])

    def take(self, codes: np.ndarray, wave: jax.Array) -> np.ndarray:
        """See `Stream`."""
        made = int(np.sum(codes[0, :, 0] >= 0))
        self._known += made
        self._ended |= made < len(codes[0])
        return self._cut(wave)

    def rest(self, waves: Sequence[jax.Array] = ()) -> np.ndarray:
        """See `Stream`; blocks that wait for a future are decoded without one."""
        self._ended = True
        rest = [np.zeros((0,), np.float32), *map(self._cut, waves)]
        while self._at < self._known * self._samples_per_frame:
            rest.append(self._cut(self._blocks.finish()))
        return np.concatenate(rest)

    def _cut(self, wave: jax.Array) -> np.ndarray:
        """What the first request has of the next samples [B, n] of the decoder."""
        start = self._skip * self._samples_per_frame - self._at
        stop = wave.shape[1]
        if self._ended:
            stop = min(stop, self._known * self._samples_per_frame - self._at)
        self._at += wave.shape[1]
        return np.asarray(wave[0])[max(start, 0) : max(stop, 0)].copy()


@functools.lru_cache(maxsize=16)
def chunk_program(config: TTSConfig, speech: Tokenizer12HzConfig) -> Callable[..., Any]:
    """Frames and their audio in one device program: one dispatch for a chunk."""
    talker, _ = abstract(TTSModel, config)
    decoder = tokenizer_programs(speech, Quirks12Hz()).decoder

    def chunk(
        params: Params,
        decoder_params: Params,
        conditions: DecodeInputs,
        state: GenerationState,
        audio: DecoderState,
        *,
        methods: SamplingPlan,
        frames: int,
    ) -> tuple[jax.Array, jax.Array, GenerationState, DecoderState]:
        with matmul_precision(params):
            codes, state = run_frames(bind(talker, params), methods, conditions, state, frames)
        with matmul_precision(decoder_params), jax.named_scope("codec"):
            # After the end of speech there are no codes; what is decoded then is thrown away.
            wave, audio = bind(decoder, decoder_params).step(jnp.maximum(codes, 0), audio)
        return codes, wave.astype(jnp.float32), state, audio

    return jax.jit(chunk, static_argnames=("methods", "frames"), donate_argnames=("state", "audio"))


@functools.lru_cache(maxsize=16)
def _frames_program(config: TTSConfig) -> Callable[..., Any]:
    """Frames alone; see `run_frames`."""
    talker, _ = abstract(TTSModel, config)

    def run(
        params: Params,
        conditions: DecodeInputs,
        state: GenerationState,
        *,
        methods: SamplingPlan,
        frames: int,
    ) -> tuple[jax.Array, GenerationState]:
        with matmul_precision(params):
            return run_frames(bind(talker, params), methods, conditions, state, frames)

    return jax.jit(run, static_argnames=("methods", "frames"), donate_argnames="state")


def stream(
    config: TTSConfig,
    params: Params,
    tokenizer: SpeechTokenizer,
    request: Request,
    chunk_frames: Sequence[int],
    arriving: Iterator[list[int]] | None = None,
) -> Chunks:
    """Audio chunks of one request, and whether it ended by itself.

    Args:
        chunk_frames: frames of the first chunks; the last number is repeated. While text is
            still arriving, frames that lack theirs are made one by one.
        arriving: text ids still to come; frames wait for them. With the whole text there, the
            device works one chunk ahead of the one being handed out, from the second chunk on.
    """
    running = Stream(config, params, tokenizer, [request], open_text=arriving is not None)
    session = running.session
    sizes = list(chunk_frames)
    in_flight: deque[tuple[jax.Array, jax.Array]] = deque()
    made = 0
    ahead = 1  # nothing may stand between the request and its first chunk
    while in_flight or not session.exhausted:
        if not session.exhausted:
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
            if arriving is None and len(in_flight) < ahead and not session.exhausted:
                continue
        device_codes, wave = in_flight.popleft()
        codes = np.asarray(device_codes)
        ahead = 2
        made += int(np.sum(codes[0, :, 0] >= 0))
        samples = running.take(codes, wave)
        if len(samples):
            yield samples
        if codes[0, -1, 0] < 0:
            break
    samples = running.rest([wave for _, wave in in_flight])
    if len(samples):
        yield samples
    return made < session.limits[0]
