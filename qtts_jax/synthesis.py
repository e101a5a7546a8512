"""From laid-out requests to audio: whole utterances in a batch, or streams in chunks."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.config import TTSConfig
from qtts_jax.config_12hz import Quirks12Hz, Tokenizer12HzConfig
from qtts_jax.functional import Params, abstract, bind, matmul_precision
from qtts_jax.generation.frame_step import Methods
from qtts_jax.generation.loops import Request, Session, generate_codes, run_frames
from qtts_jax.generation.state import Conditions, GenerationState
from qtts_jax.models.tokenizer_12hz import DecoderState
from qtts_jax.models.tokenizer_12hz.programs import programs as tokenizer_programs
from qtts_jax.models.tokenizer_12hz.programs import split
from qtts_jax.models.tts_model import TTSModel
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


@functools.lru_cache(maxsize=16)
def _chunk_program(config: TTSConfig, speech: Tokenizer12HzConfig):
    """Frames and their audio in one device program: one dispatch for a chunk."""
    talker, _ = abstract(TTSModel, config)
    decoder = tokenizer_programs(speech, Quirks12Hz()).decoder

    def chunk(
        params: Params,
        decoder_params: Params,
        conditions: Conditions,
        state: GenerationState,
        audio: DecoderState,
        *,
        methods: Methods,
        frames: int,
    ) -> tuple[jax.Array, jax.Array, GenerationState, DecoderState]:
        with matmul_precision(params):
            codes, state = run_frames(bind(talker, params), methods, conditions, state, frames)
        with matmul_precision(decoder_params), jax.named_scope("codec"):
            # After the end of speech there are no codes; what is decoded then is thrown away.
            wave, audio = bind(decoder, decoder_params).step(jnp.maximum(codes, 0), audio)
        return codes, wave.astype(jnp.float32), state, audio

    return jax.jit(chunk, static_argnames=("methods", "frames"), donate_argnames=("state", "audio"))


class Stream:
    """A batch whose audio is made along with its frames, the exact decoder state carried.

    Only the first request may have an in-context reference, and then it must be alone; its
    frames are heard by the decoder first and not given out.
    """

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
        self._params, self._decoder = params, tokenizer.params["decoder"]
        self._chunk = _chunk_program(config, tokenizer.config)
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
        """Ask the device for `frames` more frames, without waiting for them.

        Returns:
            codes [B, frames, Q] int32, -1 where a row has no frame, and samples [B, n] float32.
        """
        self.session.make_room(frames)
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
        chunk_frames: frames of the first chunks; the last number is repeated. While text is
            still arriving, frames that lack theirs are made one by one.
        arriving: text ids still to come; frames wait for them. With the whole text there, the
            device works one chunk ahead of the one being handed out, from the second chunk on.
    """
    running = Stream(config, params, tokenizer, [request], open_text=arriving is not None)
    session = running.session
    sizes = list(chunk_frames)
    in_flight: deque[tuple[jax.Array, jax.Array]] = deque()
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
        codes, wave = in_flight.popleft()
        ahead = 2
        made = int(np.sum(np.asarray(codes)[0, :, 0] >= 0))
        if made:
            yield np.asarray(wave)[0, : made * tokenizer.samples_per_frame]
        if made < codes.shape[1]:
            return
