"""Prometheus metrics of the server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from qtts_jax.serving.engine import Engine
from qtts_jax.serving.utterance import Utterance

_FIRST = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30)
_WHOLE = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)


class Metrics:
    """Histograms and counters of finished utterances, gauges of the engine.

    Args:
        engine: whose rows and queue are shown.
    """

    def __init__(self, engine: Engine) -> None:
        self._registry = registry = CollectorRegistry()
        self._first = Histogram(
            "qtts_first_audio_seconds",
            "From the request to its first audio.",
            buckets=_FIRST,
            registry=registry,
        )
        self._whole = Histogram(
            "qtts_request_seconds",
            "From the request to its last audio.",
            buckets=_WHOLE,
            registry=registry,
        )
        self._queue = Histogram(
            "qtts_queue_seconds",
            "From the request to its prefill.",
            buckets=_FIRST,
            registry=registry,
        )
        self._requests = Counter(
            "qtts_requests", "Finished requests.", ["outcome"], registry=registry
        )
        self._frames = Counter("qtts_frames", "Frames delivered.", registry=registry)
        self._seconds, self._finished = 0.0, 0
        running = Gauge("qtts_rows_in_use", "Utterances being generated.", registry=registry)
        running.set_function(lambda: engine.running)
        waiting = Gauge("qtts_requests_waiting", "Requests without a row.", registry=registry)
        waiting.set_function(lambda: engine.waiting)

    def finished(self, utterance: Utterance, outcome: str) -> None:
        """Count an utterance that has ended: "stop", "length", "cancelled" or "failed"."""
        self._requests.labels(outcome).inc()
        self._frames.inc(utterance.made)
        if utterance.ended is not None:
            self._seconds += utterance.ended - utterance.submitted
            self._finished += 1
        for histogram, at in (
            (self._queue, utterance.started),
            (self._first, utterance.first_audio),
            (self._whole, utterance.ended),
        ):
            if at is not None:
                histogram.observe(at - utterance.submitted)

    @property
    def mean_seconds(self) -> float:
        """Of a request, from its arrival to its end; 1 before the first has ended."""
        return self._seconds / self._finished if self._finished else 1.0

    def text(self) -> bytes:
        """All metrics in the text format."""
        return generate_latest(self._registry)
