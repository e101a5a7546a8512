"""Speaks many requests whole through the engine, as fast as possible: rows refill as they end."""

from __future__ import annotations

import itertools
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from qtts_jax.generation.request import Request
from qtts_jax.serving.engine import Engine
from qtts_jax.serving.settings import EngineSettings
from qtts_jax.serving.utterance import Chunk, Done, Event, Failed, Pace
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
from qtts_jax.tts.qwen_tts import QwenTTS
from qtts_jax.tts.requests import Plan
from qtts_jax.tts.speaking import joined
from qtts_jax.tts.synthesis import Speech

# Frames of a device program: a row that has ended idles for half of them on average.
FRAMES = 8
# Parts that are prepared ahead, as a multiple of the rows, so that no free row waits.
AHEAD = 2

Key = TypeVar("Key")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Line(Generic[Key]):
    """A planned request and what is known of its parts."""

    key: Key
    plan: Plan
    done: dict[int, Speech] = field(default_factory=dict)
    failed: bool = False


@dataclass(eq=False)
class _Part(Generic[Key]):
    """One part of a request in the engine; its instance is a `Deliver`."""

    line: _Line[Key]
    index: int
    request: Request
    finished: queue.SimpleQueue[_Part[Key]]
    codes: list[np.ndarray] = field(default_factory=list)
    error: Exception | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Chunk):
            self.codes.append(event.codes)
            return
        if isinstance(event, Failed):
            self.error = event.error
        elif isinstance(event, Done) and event.reason == "cancelled":
            return  # its result is not wanted
        self.finished.put(self)


class WholeSpeech(Generic[Key]):
    """Generates planned requests on one engine and decodes each as soon as it has ended.

    Parts of one request share the rows with those of others. Where a request names no voice, its
    further parts wait for the first, whose voice they carry on. The results are those of
    `QwenTTS.speak`. A fault is that of its request alone.

    Args:
        tts: a checkpoint.
        rows: utterances generated together.
    """

    def __init__(self, tts: QwenTTS, rows: int) -> None:
        self._tts, self._rows = tts, rows
        self._finished: queue.SimpleQueue[_Part[Key]] = queue.SimpleQueue()
        # Parts to be submitted, with the voice of the first part where there is one.
        self._ready: deque[tuple[_Line[Key], int, VoiceClonePromptItem | None]] = deque()
        self._running: set[_Part[Key]] = set()

    def speak(self, plans: Iterable[tuple[Key, Plan]]) -> Iterator[tuple[Key, Speech | Exception]]:
        """The result of each request, or its fault, in the order in which they end.

        Args:
            plans: each is taken when there is room for it.
        """
        coming = iter(plans)
        if (first := next(coming, None)) is None:
            return
        engine, coming = self._engine(), itertools.chain([first], coming)
        try:
            while True:
                yield from self._submit(engine, coming)
                if not self._running and engine.healthy:
                    return
                yield from self._collect(engine)
                if not engine.healthy and not self._running:
                    engine = self._engine()
        finally:
            engine.stop(0)

    def _engine(self) -> Engine:
        engine = Engine(self._tts, _settings(self._tts, self._rows))
        engine.start()
        return engine

    def _submit(
        self, engine: Engine, coming: Iterator[tuple[Key, Plan]]
    ) -> Iterator[tuple[Key, Exception]]:
        """Submit parts until enough are running; yields requests that cannot be."""
        while engine.healthy and len(self._running) < AHEAD * self._rows:
            if not self._ready:
                if (following := next(coming, None)) is None:
                    return
                line = _Line(*following)
                now = 1 if line.plan.carries_voice else len(line.plan.texts)
                self._ready.extend((line, k, None) for k in range(now))
            line, k, voice = self._ready.popleft()
            if line.failed:
                continue
            try:
                part = _Part(line, k, line.plan.prepare(k, voice), self._finished)
                engine.submit(part.request, part, pace=Pace([FRAMES]))
            except Exception as error:  # it must not cost the others
                line.failed = True
                yield line.key, error
            else:
                self._running.add(part)

    def _collect(self, engine: Engine) -> Iterator[tuple[Key, Speech | Exception]]:
        """Wait for parts that have ended and decode them; yields requests that have ended."""
        parts = [self._finished.get()]
        while len(parts) < self._rows and not self._finished.empty():
            parts.append(self._finished.get())
        self._running.difference_update(parts)
        parts = [part for part in parts if not part.line.failed]
        good = [part for part in parts if part.error is None]
        results: list[tuple[_Part[Key], Speech | Exception]] = []
        for part in parts:
            if part.error is not None:
                # What broke the engine may be too many rows, or one that is not this one.
                alone = not engine.healthy
                results.append((part, _attempt(self._generate, part) if alone else part.error))
        try:
            results += zip(good, self._decode(good), strict=True)
        except Exception:  # one of them must not cost the others
            results += [(part, _attempt(self._decode_one, part)) for part in good]
        for part, speech in results:
            if part.line.failed:
                continue
            end = speech if isinstance(speech, Exception) else _attempt(self._take, part, speech)
            part.line.failed = isinstance(end, Exception)
            if end is not None:
                yield part.line.key, end

    def _take(self, part: _Part[Key], speech: Speech) -> Speech | None:
        """Keep the speech of a part; returns that of its request once it is complete."""
        line, count = part.line, len(part.line.plan.texts)
        line.done[part.index] = speech
        if len(line.done) == count:
            return joined(line.plan, [line.done[k] for k in range(count)], self._tts.sample_rate)
        if line.plan.carries_voice and part.index == 0:
            voice = self._tts.voice_of(speech.wave, part.request.decoder_voice)
            self._ready.extend((line, k, voice) for k in range(1, count))
        return None

    def _generate(self, part: _Part[Key]) -> Speech:
        return self._tts.synthesize([part.request])[0]

    def _decode_one(self, part: _Part[Key]) -> Speech:
        return self._decode([part])[0]

    def _decode(self, parts: list[_Part[Key]]) -> list[Speech]:
        if not parts:
            return []
        none = np.zeros((0, self._tts.speech_tokenizer.codebooks), np.int32)
        codes = [np.concatenate([none, *part.codes]) for part in parts]
        return self._tts.decode([part.request for part in parts], codes)


def _attempt(function: Callable[..., Result], *arguments: Any) -> Result | Exception:
    """The result of a call, or what it raised: nothing may cost the other requests."""
    try:
        return function(*arguments)
    except Exception as error:
        return error


def _settings(tts: QwenTTS, rows: int) -> EngineSettings:
    """Settings of an engine whose only limit is the model's context."""
    context, codec = tts.config.talker.context, tts.speech_tokenizer
    return EngineSettings(
        rows=(rows,),
        chunk_frames=(1, FRAMES),
        max_prompt=context,
        max_text=np.iinfo(np.int32).max,
        max_seconds=(context + 1) * codec.samples_per_frame / codec.sample_rate,
        max_waiting=AHEAD * rows,
        offline=True,
    )
