"""Compiles the programs of usual requests, so that later processes find them in the cache.

No program or shape is named here: requests of the usual kinds and lengths are run with very few
frames through the public methods, and JAX's compilation cache keeps what they compile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from qtts_jax.errors import CheckpointError, RequestError
from qtts_jax.generation.batch import MIN_PROMPT
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import FRAMES_PER_CALL, Session
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
from qtts_jax.tts.qwen_tts import QwenTTS

# Prompt sizes from that of a short sentence to that of a long paragraph.
PROMPTS = tuple(MIN_PROMPT << bit for bit in range(4))
# Seconds of reference recordings.
RECORDINGS = (3.0, 6.0, 12.0)
SEED = 0

Step = tuple[str, Callable[[], object]]


def warm_up(tts: QwenTTS, batch_size: int = 8, seconds: float = 80.0) -> int:
    """Run every usual kind of request once, showing a progress bar.

    Covered are utterances alone and in batches of `batch_size`, streams of a text that is there or
    still arriving, and (Base checkpoints) references for cloning; sampled with the checkpoint's
    own settings. Other batch sizes, greedy decoding and longer texts compile when they first occur.

    Args:
        tts: the checkpoint, in the dtype and with the options that later processes use.
        batch_size: requests of a batch.
        seconds: the longest utterance to be ready for.

    Returns:
        How many kinds of request were run.
    """
    steps = list(_steps(tts, batch_size, seconds))
    with tqdm(steps, unit="program", desc="compiling") as bar:
        for name, run in bar:
            bar.set_postfix_str(name)
            run()
    return len(steps)


def _steps(tts: QwenTTS, batch_size: int, seconds: float) -> Iterator[Step]:
    """What to run, the most usual first."""
    speaker = _Speaker(tts)
    codec = tts.speech_tokenizer
    longest = int(np.ceil(seconds * codec.sample_rate / codec.samples_per_frame))
    texts = {size: speaker.text(size) for size in PROMPTS}
    for size, text in texts.items():
        yield f"stream, prompt of {size}", partial(speaker.stream, text)
    yield "stream, text arriving", partial(speaker.stream, iter(["word "] * 8))
    yield f"stream, {seconds:g} s", partial(speaker.long_stream, longest)
    for rows in sorted({1, batch_size}):
        for size, text in texts.items():
            name = f"{rows} together, prompts of {size}"
            yield name, partial(speaker.together, rows, text, FRAMES_PER_CALL)
        yield f"{rows} together, {seconds:g} s", partial(speaker.together, rows, "Long.", longest)
        for frames in _frame_counts(longest):
            yield f"decode {rows} x {frames} frames", partial(speaker.decode, rows, frames)
    if "voice_clone" in tts.modes:
        for length in RECORDINGS:
            yield f"reference of {length:g} s", partial(speaker.clone, length)


class _Speaker:
    """Requests of the checkpoint's first mode."""

    def __init__(self, tts: QwenTTS) -> None:
        self.tts = tts
        self.preset = tts.default_speaker
        self.chunks = tts.speech_tokenizer.first_chunks
        # Frames that reach every chunk size of a stream; `max_new_tokens` is one more than frames.
        few_frames = sum(self.chunks) + 2
        self.voice = tts.speech_tokenizer.placeholder_voice()
        # Not for clones: their decoder's voice is part of the cloned voice.
        self.decoder: dict[str, Any] = {"decoder_voice": self.voice}
        self.few: dict[str, Any] = {"seed": SEED, "max_new_tokens": few_frames + 1}

    def text(self, positions: int) -> str:
        """The longest text whose prompt fits in `positions`; at least one word."""
        words = 1
        while self._positions(_text(words + 1)) <= positions:
            words += 1
        return _text(words)

    def _positions(self, text: str) -> int:
        """Positions of a prompt and of the text that trails it, where a layout has such."""
        prompt = self._request(text, 1).prompt
        return len(prompt) + len(prompt.trailing)

    def stream(self, text: str | Iterator[str]) -> None:
        """A stream through every chunk size."""
        tts = self.tts
        if tts.mode == "custom_voice":
            assert self.preset is not None
            chunks = tts.stream_custom_voice(text, self.preset, **self.decoder, **self.few)
        elif tts.mode == "voice_design":
            chunks = tts.stream_voice_design(text, "calm", **self.decoder, **self.few)
        else:
            chunks = tts.stream_voice_clone(text, voice_clone_prompt=self._timbre(), **self.few)
        for _ in chunks:
            pass

    def long_stream(self, frames: int) -> None:
        """Every chunk size at every cache size that a stream of `frames` reaches."""
        tts = self.tts
        request = self._request("Long.", frames)
        session = Session(tts.config, tts.params, [request])
        stream = tts.speech_tokenizer.open_stream(session, [request])
        known = session.capacity
        while session.frames_asked < frames:
            session.grow_cache(FRAMES_PER_CALL)
            if session.capacity != known:
                known = session.capacity
                for chunk in self.chunks:
                    np.asarray(stream.advance(chunk)[1])

    def together(self, rows: int, text: str, frames: int) -> None:
        """A batch of whole utterances at every cache size up to `frames`, hardly generating."""
        tts = self.tts
        session = Session(tts.config, tts.params, [self._request(text, 1)] * rows)
        while session.frames_asked < frames:
            np.asarray(session.advance())
            session.finished()

    def decode(self, rows: int, frames: int) -> None:
        """Decoding alone, without generating frames."""
        codec = self.tts.speech_tokenizer
        codes = np.zeros((frames, codec.codebooks), np.int32)
        codec.decode_requests([codes] * rows, [self._request("Long.", 1)] * rows)

    def clone(self, seconds: float) -> None:
        """A voice from a recording, and a stream after its in-context reference."""
        tts = self.tts
        rate = tts.speech_tokenizer.sample_rate
        noise = 0.1 * np.random.default_rng(SEED).standard_normal(int(seconds * rate))
        words = _text(int(2.5 * seconds))  # a usual pace
        recording = noise.astype(np.float32), rate
        voice = self._voice_of(recording)
        item = tts.create_voice_clone_prompt(recording, words, decoder_voice=voice)[0]
        for _ in tts.stream_voice_clone(_text(16), voice_clone_prompt=item, **self.few):
            pass

    def _request(self, text: str, frames: int) -> Request:
        tts = self.tts
        options: dict[str, Any] = {"seed": SEED, "max_new_tokens": frames + 1}
        if tts.mode == "custom_voice":
            return tts.prepare_custom_voice(text, self.preset, **self.decoder, **options)
        if tts.mode == "voice_design":
            return tts.prepare_voice_design(text, "calm", **self.decoder, **options)
        return tts.prepare_voice_clone(text, self._timbre(), **options)

    def _timbre(self) -> VoiceClonePromptItem:
        """A cloned voice without a recording in the prompt."""
        width = self.tts.config.talker.transformer.width
        vector = np.zeros(width, np.float32)
        return VoiceClonePromptItem(None, vector, True, False, decoder_voice=self.voice)

    def _voice_of(self, recording: tuple[np.ndarray, int]) -> ReferenceVoice | None:
        """The decoder's voice of a recording, if it needs one and the checkpoint computes any."""
        codec = self.tts.speech_tokenizer
        if not codec.needs_voice:
            return None
        try:
            return codec.reference_voice(recording)
        except (CheckpointError, RequestError):  # no CAM++: clones must bring a voice, as here
            return self.voice


def _text(words: int) -> str:
    return " ".join(["word"] * words) + "."


def _frame_counts(longest: int) -> list[int]:
    """Powers of two up to `longest`: together they use every block size of a decoder."""
    return [1 << bit for bit in range(longest.bit_length())]
