"""One submitted request: what the client sees of it, and what the engine counts for it."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from qtts_jax.generation.request import Request
from qtts_jax.generation.sampling import SamplingPlan
from qtts_jax.serving.block_audio import BlockAudio


@dataclass(frozen=True)
class Chunk:
    """Audio of some frames: float32 [n] in [-1, 1], and the codes int32 [T, Q] it was made of.

    Offline there is no audio: n is 0. At 25 Hz the audio is that of earlier frames, and the last
    chunk may be audio alone.
    """

    wave: np.ndarray
    codes: np.ndarray


@dataclass(frozen=True)
class Done:
    """The last event of an utterance that did not fail.

    Attributes:
        reason: "stop", the model ended the speech; "length", it was cut at the most frames it may
            have; "cancelled", the client left.
    """

    reason: str


@dataclass(frozen=True)
class Failed:
    """The last event of an utterance that broke off.

    Attributes:
        error: what went wrong.
    """

    error: Exception


Event = Chunk | Done | Failed


@dataclass(frozen=True)
class Pace:
    """When the audio of an utterance is delivered.

    Attributes:
        chunk_frames: wished frames of the first chunks; the last number is repeated. None: those of
            the engine's settings.
        prebuffer: frames whose audio is made before the first is delivered.
        whole: the audio is used when it is complete. A 25 Hz decoder then waits for all that a
            block depends on, which gives the audio of whole decoding.
    """

    chunk_frames: Sequence[int] | None = None
    prebuffer: int = 0
    whole: bool = False


DEFAULT_PACE = Pace()
Deliver = Callable[[Event], None]


@dataclass(eq=False)
class Utterance:
    """A request on its way through the engine.

    Attributes:
        request: prepared, with its number of frames within the engine's limit.
        needs: of the sampler.
        chunk_frames: wished frames of its first chunks; the last number is repeated.
        open_text: more text ids will come.
        deliver: takes its events; called by the engine's thread, so it must return at once.
        text_ids: text ids known so far that are fed along with the frames.
        lag: text ids that must be known beyond those of a frame (`TalkerConfig.lag`).
        prebuffer: frames whose audio is made before the first is delivered.
        whole: as of `Pace`.
        early_ids: text ids that arrived before the utterance had a row.
        budget: the most frames that text which arrived in parts can need; None until it is whole.
        frames, chunks: dispatched to the device.
        made: frames whose codes are here.
        audible: frames whose audio is made; at 25 Hz fewer than `made`.
        decoder: makes the audio where the programs of the rows do not; None before the start.
        held: chunks that are not delivered yet.
        cancelled: the client has left.
        submitted, started, first_audio, ended: times of `time.monotonic`, None before.
    """

    request: Request
    needs: SamplingPlan
    chunk_frames: Sequence[int]
    open_text: bool
    deliver: Deliver
    text_ids: int
    lag: int = 0
    prebuffer: int = 0
    whole: bool = False
    early_ids: list[int] = field(default_factory=list)
    budget: int | None = None
    frames: int = 0
    made: int = 0
    chunks: int = 0
    audible: float = 0.0
    decoder: BlockAudio | None = None
    held: list[Chunk] = field(default_factory=list)
    cancelled: bool = False
    submitted: float = field(default_factory=time.monotonic)
    started: float | None = None
    first_audio: float | None = None
    ended: float | None = None

    @property
    def max_frames(self) -> int:
        """Frames when no end of speech comes."""
        most = self.request.max_frames
        return most if self.budget is None else min(most, self.budget)

    @property
    def next_frames(self) -> int:
        """The most frames that its next chunk should have; 0 while it waits for text."""
        sizes = self.chunk_frames
        wished = sizes[min(self.chunks, len(sizes) - 1)]
        return min(wished, self.text_ids - self.lag - self.frames) if self.open_text else wished

    def runs_dry(self, seconds_per_frame: float) -> float | None:
        """When a client that plays from the first audio on has no more; None before the first."""
        if self.first_audio is None:
            return None
        return self.first_audio + self.audible * seconds_per_frame


class EventQueue:
    """Events of one utterance for a reader in another thread; its instance is a `Deliver`."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def __call__(self, event: Event) -> None:
        self._events.put(event)

    def chunks(self) -> Generator[Chunk, None, str]:
        """The chunks as they come; returns `Done.reason`.

        Raises:
            Exception: what made the utterance fail.
        """
        while True:
            event = self._events.get()
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Done):
                return event.reason
            yield event
