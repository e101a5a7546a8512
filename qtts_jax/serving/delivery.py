"""Delivers the audio of utterances: the first at once, the rest once the device has work again."""

from __future__ import annotations

import time

import numpy as np

from qtts_jax.serving.utterance import Chunk, Done, Event, Failed, Utterance

# With this many rows, up to this many frames are gathered while a client has audio for this many
# seconds.
MANY, GATHERED, SOON = 64, 16, 1.0


class Delivery:
    """Events on their way to the clients; used by the engine's thread alone.

    Args:
        samples_per_frame, seconds_per_frame: of audio.
        offline: there is no audio, and no event is urgent.
    """

    def __init__(self, samples_per_frame: int, seconds_per_frame: float, offline: bool) -> None:
        self._samples, self._seconds, self._offline = samples_per_frame, seconds_per_frame, offline
        self._outbox: list[tuple[Utterance, Event]] = []

    def hold(self, utterance: Utterance, chunk: Chunk) -> None:
        """Keep a chunk until `release`."""
        utterance.audible += len(chunk.wave) / self._samples
        utterance.held.append(chunk)

    def is_due(self, utterance: Utterance, rows: int) -> bool:
        """Whether what is held should be released now.

        With many rows, audio that a client does not need soon is gathered, since every event costs
        the host as much time as many frames.

        Args:
            rows: of the running batch.
        """
        if self._offline:
            return True
        if not any(len(chunk.wave) for chunk in utterance.held):
            return False
        dry = utterance.runs_dry(self._seconds)
        if dry is None:
            return utterance.audible >= utterance.prebuffer
        held = sum(len(chunk.codes) for chunk in utterance.held)
        soon = dry - held * self._seconds < time.monotonic() + SOON
        return soon or held >= GATHERED or rows < MANY

    def release(self, utterance: Utterance) -> None:
        """Deliver the chunks that are held, as one: the first now, later ones by `send`."""
        if not utterance.held:
            return
        chunk = utterance.held[0]
        if len(utterance.held) > 1:
            parts = [(each.wave, each.codes) for each in utterance.held]
            waves, codes = zip(*parts, strict=True)
            chunk = Chunk(np.concatenate(waves), np.concatenate(codes))
        utterance.held = []
        if utterance.first_audio is None and not self._offline:
            utterance.first_audio = time.monotonic()
            _deliver(utterance, chunk)
        else:
            self._outbox.append((utterance, chunk))

    def end(self, utterance: Utterance, event: Done | Failed) -> None:
        """Release what is held, and deliver the last event by `send`."""
        self.release(utterance)
        self._outbox.append((utterance, event))

    def send(self) -> None:
        """Deliver the events that had time until now."""
        outbox, self._outbox = self._outbox, []
        for utterance, event in outbox:
            _deliver(utterance, event)


def _deliver(utterance: Utterance, event: Event) -> None:
    """Deliver an event; a client whose delivery fails has left."""
    try:
        utterance.deliver(event)
    except Exception:  # it must not end the other utterances
        utterance.cancelled = True
